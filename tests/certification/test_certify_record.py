"""What a certificate says in the record of its run."""

from __future__ import annotations

from doorward.certification.results import headline_point, judge


def test_the_headline_is_the_largest_radius_that_holds_for_half_of_the_images() -> None:
    assert headline_point({0: 1.0, 1: 0.7, 2: 0.5, 3: 0.4}) == (2, 0.5)
    assert headline_point({0: 1.0, 1: 0.3}) == (1, 0.3) and headline_point({0: 0.4}) == (0, 0.4)
    judgement = judge({0: 1.0, 1: 0.7}, {1: 0.6}, 7, 200)
    assert judgement.level == "certificate"
    assert judgement.headline == "Certified: 70.0 % of the test images stay right under any 1 change"
    assert [r.split(";")[0] for r in judgement.reasons] == [
        "All statements jointly, with the same confidence: 60.0 % at this budget.",
        "The procedure abstains on 7 images",
        "Measured on 200 test images",
    ]
