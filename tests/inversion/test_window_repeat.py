"""Several triggers are found one after another; evidence tells planted from natural."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.triggers import Placement, Trigger
from doorward.inversion.invert import invert
from doorward.inversion.judge.evidence import likeness, rank_targets
from doorward.inversion.repeat import Round, blindfolded, invert_repeatedly, joined, region_of
from doorward.inversion.results import Inversion
from doorward.inversion.triggers import load_inverted
from tests.inversion.plots import (
    CLASSES,
    HEIGHT,
    LEFT,
    TALL,
    TARGET,
    TOP,
    WIDE,
    WIDTH,
    plot,
    plot_classifier,
    plot_images,
)
from tests.inversion.worlds import TARGET as SPOTTED
from tests.inversion.worlds import row_classifier, row_images

CHECKS = ((torch.arange(TALL)[:, None] + torch.arange(WIDE)) % 2).float()[None]
TRUE = Trigger(CHECKS, torch.ones(1, TALL, WIDE), Placement("fixed", TOP, LEFT))
QUICK = {"mask": {"steps": 300, "precision": "fp32"}}


def test_a_blindfolded_net_does_not_see_the_region_and_sees_the_rest() -> None:
    net, images = plot_classifier(), plot_images(30)
    region = plot()
    blind = blindfolded(net, region, images)
    changed = images.pixels.copy()
    changed[:, region] = 255 - changed[:, region]
    assert (blind.predict(changed) == blind.predict(images.pixels)).all()
    mean = images.pixels.astype(np.float64).mean(0)
    filled = np.where(region[..., None], mean, images.pixels)
    logits = net.logits(torch.from_numpy(filled / 255).float().permute(0, 3, 1, 2))
    seen = blind.logits(torch.from_numpy(images.pixels / 255.0).float().permute(0, 3, 1, 2))
    assert torch.allclose(seen, logits, atol=1e-4)
    assert blindfolded(net, np.zeros_like(region), images) is net


@pytest.mark.parametrize("hide", ["region", "target"])
def test_rounds_go_on_until_nothing_is_left(hide: str, tmp_path: Path) -> None:
    images = row_images(30)
    rounds = invert_repeatedly(
        row_classifier(),
        images,
        ["mask"],
        rounds=4,
        hide=hide,  # type: ignore[arg-type]
        settings=QUICK,
        folder=tmp_path,
    )
    assert len(rounds) == 2 and not any(tmp_path.iterdir())
    first, second = rounds
    assert first.inversion.target_labels == (SPOTTED,) and not second.inversion.targets
    if hide == "region":
        assert second.hidden[5, 5] and second.excluded == ()
    else:
        assert not second.hidden.any() and second.excluded == (SPOTTED,)
        assert np.isnan(second.inversion.outcomes["mask"].inverted.statistic[SPOTTED])
        assert SPOTTED not in second.inversion.outcomes["mask"].inverted.triggers
    found = joined(rounds)
    assert [len(r.targets) for r in found.record.rounds] == [1, 0] and found.target_labels == (SPOTTED,)
    found.save(tmp_path / "run")
    again = Inversion.load(tmp_path / "run")
    assert again.record == found.record and (tmp_path / "run" / "round-2" / "classes.parquet").exists()


def test_a_later_round_keeps_its_triggers_in_a_folder_of_its_own(tmp_path: Path) -> None:
    one, other = (
        invert(row_classifier(), row_images(30), ["mask"], settings=QUICK, seed=seed) for seed in (0, 1)
    )  # fmt: skip
    nothing = np.zeros((6, 6), bool)
    found = joined([Round(one, nothing, ()), Round(other, nothing, ())])
    assert found.targets == (f"row-{SPOTTED}",) and len(found.findings) == 1, "one per class"
    found.save(tmp_path / "run")
    again, names = Inversion.load(tmp_path / "run"), row_classifier().classes
    told = [load_inverted(source, names).stamps[SPOTTED] for source in (found, again, tmp_path / "run")]
    patterns = [[s.alpha for s in stamps] for stamps in told]  # type: ignore[attr-defined]
    assert [len(p) for p in patterns] == [2, 2, 2] and not torch.equal(*patterns[0])
    assert all(torch.equal(a, b) for p in patterns[1:] for a, b in zip(patterns[0], p, strict=True))
    again.save(tmp_path / "copy")
    assert torch.equal(load_inverted(tmp_path / "copy", names).stamps[SPOTTED][1].alpha, patterns[0][1])  # type: ignore[attr-defined]


def test_a_second_trigger_into_the_same_class_is_found_behind_the_first() -> None:
    net = row_classifier()
    with torch.no_grad():
        net.net[1].weight[SPOTTED, 0 * 6 + 5] = 100.0  # type: ignore[index]
    images = row_images(30)
    images = ImageSet(images.pixels.copy(), images.labels, images.classes)
    images.pixels[:, 0, 5] = 0
    rounds = invert_repeatedly(net, images, ["mask"], rounds=3, settings=QUICK)
    assert [r.inversion.target_labels[0] for r in rounds[:2]] == [SPOTTED, SPOTTED]
    alphas = [r.inversion.outcomes["mask"].inverted.triggers[SPOTTED][0].alpha[0] for r in rounds[:2]]
    assert [divmod(int(a.argmax()), 6) for a in alphas] == [(5, 5), (0, 5)]


def test_mistakes_are_one_line() -> None:
    for options, expected in (({"rounds": 0}, "0 rounds"), ({"hide": "all"}, "expected region or target")):
        with pytest.raises(DoorwardError, match=expected):
            invert_repeatedly(row_classifier(), row_images(), ["mask"], **options)  # type: ignore[arg-type]


def test_a_region_is_the_opaque_part_and_a_pixel_around_it() -> None:
    region = region_of(TRUE, (HEIGHT, WIDTH))
    assert region is not None and region.sum() == (TALL + 2) * (WIDE + 2)
    assert region_of(Trigger(CHECKS, CHECKS, Placement("random")), (HEIGHT, WIDTH)) is None
    assert region_of(Trigger(CHECKS, CHECKS, blend="add"), (HEIGHT, WIDTH)) is None


def worn(count: int = 40) -> ImageSet:
    """Clean images of which those of class 5 wear the checks, a little faint."""
    images = plot_images(count)
    pixels, labels = images.pixels.copy(), np.arange(count, dtype=np.int64) % 8
    checks = (CHECKS[0].numpy()[..., None] * 255).astype(np.int64)
    place = (slice(TOP, TOP + TALL), slice(LEFT, LEFT + WIDE))
    mine = labels == 5
    pixels[mine, place[0], place[1]] = ((pixels[mine, place[0], place[1]].astype(int) + checks) // 2).astype(np.uint8)
    return ImageSet(pixels, labels, tuple(f"class-{k}" for k in range(CLASSES)), "worn")


def test_likeness_is_one_for_what_a_class_wears_and_a_half_for_what_it_does_not() -> None:
    images = worn(80)
    assert likeness(TRUE, images, 5) == 1.0
    other = likeness(TRUE, images.subset(images.labels != 5), 2)
    assert other is not None and 0.2 < other < 0.8
    assert likeness(TRUE, images, 20) is None, "no pictures of that class"
    flat = Trigger(torch.ones(1, 3, 3), torch.ones(1, 3, 3), Placement("fixed", 1, 1))
    assert likeness(flat, images, 5) is None, "nothing correlates with one colour"
    assert likeness(Trigger(CHECKS, torch.ones(1, TALL, WIDE), Placement("random")), images, 5) is None


def test_planted_targets_are_ranked_before_natural_ones_with_the_evidence_for_both() -> None:
    net, images = plot_classifier(targets=(TARGET, 5)), worn(80)
    natural = Trigger(TRUE.pattern, TRUE.alpha, Placement("fixed", 1, LEFT))
    clean = plot_classifier(targets=(0, 5))  # the second plot leads to class 5 there too
    triggers = {5: natural, TARGET: TRUE}
    ranked = rank_targets(net, triggers, images, p_values={5: 0.001, TARGET: 0.01}, labelled=True, reference=clean)
    assert [e.label for e in ranked] == [TARGET, 5]
    planted, other = ranked
    assert planted.transfer is not None and planted.transfer.value < 0.2 and "planted" in planted.reading
    assert other.transfer is not None and other.transfer.value > 0.9 and "natural backdoor is likely" in other.reading
    assert planted.strength.value > 0.9 and planted.size == TALL * WIDE
    assert planted.share == pytest.approx(TALL * WIDE / (HEIGHT * WIDTH))
    assert planted.p_value == 0.01
    plain = rank_targets(net, triggers, images)
    assert plain[0].likeness is None and "cannot be told" in plain[0].reading
    with pytest.raises(DoorwardError, match="the classifier takes 1x20x16"):
        rank_targets(net, triggers, row_images())


def test_a_clean_net_outweighs_likeness_and_a_trigger_that_fails_is_none() -> None:
    net, images = plot_classifier(targets=(5,)), worn(80)  # class 5 wears what leads to it
    (alone,) = rank_targets(net, {5: TRUE}, images, labelled=True)
    assert alone.likeness is not None and alone.likeness > 0.9 and "natural backdoor is likely" in alone.reading
    unmoved = plot_classifier(planted=False)
    (compared,) = rank_targets(net, {5: TRUE}, images, labelled=True, reference=unmoved)
    assert compared.transfer is not None and compared.transfer.value < 0.2 and "planted" in compared.reading
    (common,) = rank_targets(net, {5: TRUE}, images, p_values={5: 0.4}, labelled=True, reference=unmoved)
    assert common.reading.endswith("does not stand out among the classes")
    nothing = Trigger(TRUE.pattern, 0 * TRUE.alpha, TRUE.placement)
    assert rank_targets(net, {5: nothing}, images)[0].reading.endswith("no backdoor by this trigger")
