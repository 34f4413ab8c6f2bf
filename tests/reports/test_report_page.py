"""The page as a whole: what it says, what it never does, and how it refuses."""

import base64
import hashlib
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import doorward
from doorward.core.errors import DoorwardError, OutputExistsError
from doorward.reports.page import compose, report
from doorward.reports.sections import supported

HOSTILE = '<script>alert(1)</script>"><img src=http://x.test/a onerror=alert(2)>'
DIGITS = [str(d) for d in range(10)]
CONTROL = "nul\x00 bell\x07 esc\x1b[2J rtl\u202e lone\ud800 line\u2028"
_MARKUP = {
    "html", "head", "meta", "link", "title", "style", "body", "header", "main", "footer", "section", "article", "div",
    "p", "h1", "h2", "h3", "h4", "ul", "li", "dl", "dt", "dd", "table", "caption", "thead", "tbody", "tr", "th", "td",
    "details", "summary", "figure", "figcaption", "img", "span", "small", "b", "em", "code", "pre", "a",
    "svg", "path", "rect", "circle", "text",
}  # fmt: skip
_VOID = {"meta", "link", "img"}


class Parsed(HTMLParser):
    """Elements, attributes and text; every element must be closed in its turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.style = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.style += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for t, attributes in self.elements if t == tag]


def assert_harmless(html: str) -> Parsed:
    """Only our elements, no handler, no style attribute, nothing to fetch; the policy fits the style."""
    page = Parsed(html)
    assert {tag for tag, _ in page.elements} <= _MARKUP
    for _, attributes in page.elements:
        assert not any(a.startswith("on") or a == "style" for a in attributes)
        for key in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:", "#")), value
    assert "url(" not in page.style and "@import" not in page.style
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert not re.search("[\x00-\x08\x0b-\x1f\u2028\u202e\ud800]", html)
    return page


def test_page_of_a_run(finished_run: Path, tmp_path: Path) -> None:
    path = report(finished_run, tmp_path / "new" / "report.html")
    html = path.read_text(encoding="utf-8")
    page = assert_harmless(html)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    words = " ".join(page.text.split())
    for said in (
        "Evidence of a backdoor in class “0”", "What was looked for", "What could not be seen", "Clean-label poison",
        "Every class, every method", "Accused classes, image by image", "told: poisoning rate", "4,000", "98.8 %",
        "computed with knowledge of which images are poisoned", "95.5 to 100.0 % (80 of 80)", "97.5 to 99.2 %",
        "doorward cleanse poisoned/ --seed 1 -o run/", "0.997", "seed = 1", "torch 2.13.0", "9c41d0b7",
        "max_components = 8", "projected to 40 dimensions",
    ):  # fmt: skip
        assert said in words, said


def test_package_is_callable(finished_run: Path, tmp_path: Path) -> None:
    assert doorward.report([finished_run], tmp_path / "a.html", title="Mine").exists()  # type: ignore[operator]
    assert "<title>Mine</title>" in (tmp_path / "a.html").read_text()


def test_every_picture_has_words_and_every_chart_a_label(finished_run: Path) -> None:
    page = Parsed(compose(finished_run).html)
    images = page.all("img")
    assert len(images) == 16 * 4  # typical, and three methods
    assert all(i["alt"] for i in images)
    assert all(s.get("aria-label") or s.get("aria-hidden") for s in page.all("svg"))


def test_thumbnails_are_the_run_s_pixels(finished_run: Path) -> None:
    pixels = np.load(finished_run / "thumbnails.npy")
    rows = json.loads((finished_run / "run.json").read_text())["results"]["thumbnails"]["suspects"]["impurity"]["0"]
    images = [i for i in Parsed(compose(finished_run).html).all("img") if "impurity" in (i["alt"] or "")]
    for image, row in zip(images, rows, strict=False):
        data = base64.b64decode((image["src"] or "").split(",")[1])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels[row, :, :, 0])


def test_hostile_names_are_text(make_run: Any) -> None:
    classes = [HOSTILE, CONTROL, "../../etc/passwd", "", "x" * 3000, "{{ 7 * 7 }}", *DIGITS[:4]]
    run = make_run(
        classes=classes,
        name=HOSTILE + CONTROL,
        scored=True,
        rename={"impurity": HOSTILE, "activation": "act\x07\u202e"},
    )
    manifest = json.loads((run / "run.json").read_text())
    manifest["command"] = manifest["platform"] = HOSTILE + CONTROL
    manifest["settings"][HOSTILE] = manifest["versions"][CONTROL] = HOSTILE
    for method in manifest["results"]["methods"].values():
        method["warnings"] = [HOSTILE + CONTROL]
        method["given"] = [HOSTILE, CONTROL]
        method["settings"] = {HOSTILE: CONTROL}
    (run / "run.json").write_text(json.dumps(manifest))
    score = json.loads((run / "score.json").read_text())
    score["attack"].update(recipe=HOSTILE, description=CONTROL)
    score["models"][0]["name"] = HOSTILE
    (run / "score.json").write_text(json.dumps(score))

    page = assert_harmless(compose([run, run], title=HOSTILE + CONTROL).html)
    assert "<script>alert(1)</script>" in page.text  # as text: what the class is called
    assert "nul\\x00 bell\\x07 esc\\x1b[2J rtl\\u202e lone\\ud800" in page.text
    assert "{{ 7 * 7 }}" in page.text and "49" not in re.findall(r"class (\d+)", page.text)
    assert "x" * 100 not in page.text


@pytest.mark.parametrize("size", [32, 96])
def test_ten_flagged_classes_in_colour_stay_under_three_megabytes(make_run: Any, size: int) -> None:
    run = make_run(size=size, channels=3, scored=True, kinds=("impurity", "activation", "spectral"))
    rng = np.random.default_rng(0)
    shape = np.load(run / "thumbnails.npy").shape
    np.save(run / "thumbnails.npy", rng.integers(0, 256, shape, dtype=np.uint8))  # noise: what PNG packs worst
    manifest = json.loads((run / "run.json").read_text())
    for method in manifest["results"]["methods"].values():
        method["knowledge"] = []  # so that all of its flags count, in every class
    manifest["results"]["thumbnails"]["suspects"] = {
        m: {label: list(range(24)) for label in DIGITS} for m in manifest["results"]["methods"]
    }
    (run / "run.json").write_text(json.dumps(manifest))
    page = compose(run)
    assert 200_000 < len(page.html.encode()) < 3_000_000
    assert len(compose([run] * 40).html.encode()) < 3_000_000


@pytest.mark.parametrize("size", [28, 96, 224])
def test_every_picture_on_a_page_decodes_to_the_thumbnail_it_stands_for(make_run: Any, size: int) -> None:
    images = Parsed(compose(make_run(size=size, channels=3)).html).all("img")
    assert len(images) > 50
    for image in images:
        kind, _, data = (image["src"] or "").partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
            picture.load()
            assert picture.format == "PNG" and max(picture.size) == min(size, 64)


def test_many_runs_get_a_table_and_the_worst_a_section(make_run: Any) -> None:
    bad, good = make_run("bad"), make_run("good", poisoned=0, kinds=("impurity",))
    page = compose([good] * 45 + [bad] * 5)
    parsed = assert_harmless(page.html)
    assert len([d for d in parsed.all("details") if d.get("class") == "run"]) == 24
    assert {f"run-{i}" for i in range(46, 51)} <= {h.get("id") for h in parsed.all("h2")}
    assert "50 runs: 5\xa0×\xa0evidence of a backdoor, 45\xa0×\xa0nothing found" in parsed.text
    assert "26 runs with lesser verdicts have no section here" in parsed.text
    assert len(page.html) < 3_000_000


def test_a_hundred_classes_show_the_flagged_ones_first(make_run: Any) -> None:
    run = make_run(classes=[f"class {i}" for i in range(100)], target=77)
    page = Parsed(compose(run).html)
    matrix = page.text.split("Every class, every method")[1]
    assert matrix.index("class 77") < matrix.index("class 3")
    assert "60 classes with fewer or no flagged images not shown" in page.text


def test_nothing_found(make_run: Any) -> None:
    page = compose(make_run(poisoned=0, kinds=("impurity", "activation")))
    assert not page.has_findings
    assert "Nothing found by these methods" in page.html
    assert "What could not be seen" in page.html


def test_a_method_that_is_not_installed_here_is_said_to_be_unknown(make_run: Any) -> None:
    page = compose(make_run(rename={"impurity": "other-method"}))
    assert "No description of this method is installed here." in page.html


def test_numbers_that_are_none(make_run: Any) -> None:
    run = make_run(scored=True)
    text = (run / "run.json").read_text()
    manifest = json.loads(text)
    for method in manifest["results"]["methods"].values():
        method["class_scores"] = [None] * 10
    (run / "run.json").write_text(json.dumps(manifest))
    score = json.loads((run / "score.json").read_text())
    for method in score["methods"].values():
        method["auroc"] = None
        method["fpr_target"]["value"] = None
    (run / "score.json").write_text(json.dumps(score))
    page = assert_harmless(compose(run).html)
    assert not re.search(r"\b(nan|inf|None)\b", page.text)
    drawn = [v or "" for tag, a in page.elements if tag in ("rect", "path", "circle") for v in a.values()]
    assert drawn and not any("nan" in v or "inf" in v for v in drawn)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_of_json_s_are_refused(make_run: Any, value: str) -> None:
    run = make_run()
    text = re.sub(r'"seconds": [0-9.]+', f'"seconds": {value}', (run / "run.json").read_text())
    (run / "run.json").write_text(text)
    with pytest.raises(DoorwardError, match=f"run.json: the number {value}; expected JSON"):
        compose(run)


def test_the_same_runs_give_the_same_page(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first = compose([finished_run, finished_run]).html
    assert first == compose([finished_run, finished_run]).html
    assert "14 November 2023" in first


def test_certificate(make_certificate: Any) -> None:
    page = compose(make_certificate())
    text = " ".join(assert_harmless(page.html).text.split())
    assert "Certified: 68.0 % of the test images stay right under any 2 changes" in text
    assert (
        "For 68.0 % of the test images, no attacker who changes at most 2 values in all among training pixels, "
        "training labels and test pixels can change the right prediction of this training and prediction procedure"
    ) in text
    assert "this holds with confidence 99.9 % for each image by itself" in text
    assert "61.1 to 74.4 %" in text  # Clopper-Pearson, 136 of 200
    assert "jointly, with the same confidence: 66.5 %" in text
    assert "1e" * 32 in text
    assert not page.has_findings


def test_certificate_without_sampling(make_certificate: Any) -> None:
    text = compose(make_certificate(exact=True)).html
    assert "under any 5 changes" in text  # radii 0 to 9, 20 images each: half of them have 5 or more
    assert "with certainty, without sampling" in text
    assert "jointly" not in text and "random draws" not in text


def test_certificate_claims_nothing_where_there_is_none(make_certificate: Any) -> None:
    run = make_certificate("summary")
    (run / "certificate.json").unlink()
    assert_nothing_proven(run, "There is no certificate.json")


def assert_nothing_proven(run: Path, why: str) -> None:
    """The page says so first, and shows neither a radius nor a share."""
    page = compose(run)
    text = " ".join(Parsed(page.html).text.split())
    assert "This certificate does not verify: nothing is proven" in text and why in text
    for claim in ("Certified accuracy", "What is guaranteed", "stay right", "at radius", "68.0 %", "99.9 %", "100 %"):
        assert claim not in text, claim
    assert not page.has_findings and page.sections[0].verdict.level == "undecided"


def test_certificate_that_does_not_verify_says_so_first(make_certificate: Any) -> None:
    from doorward.certification.certificate import content_hash

    path = make_certificate() / "certificate.json"
    content = json.loads(path.read_text())
    for changes, why in (
        ({"radii": [50] * 200}, "do not follow"),
        ({"alpha": "1/0"}, "Alpha: expected a rational"),
        ({"noise": []}, "Noise: expected 3 entries"),
    ):
        forged = {k: v for k, v in {**content, **changes}.items() if k != "sha256"}
        path.write_text(json.dumps({**forged, "sha256": content_hash(forged)}))
        assert_nothing_proven(path.parent, why)


def test_certificate_speaks_for_itself_whatever_the_summary_says(make_certificate: Any) -> None:
    """run.json is bound by nothing: its numbers are not shown."""
    said = {"50": 1.0}
    judgement = {"level": "certificate", "headline": "Certified: 100.0 % of the test images under any 50 changes"}
    changes = {"certified_accuracy": said, "jointly_certified_accuracy": said, "judgement": judgement}
    lied = compose(
        make_certificate("lied", **changes, clean_accuracy=1.0, abstained=0, trials=10**6, test_images=10**6)
    )
    text = " ".join(Parsed(lied.html).text.split())
    assert "Certified: 68.0 % of the test images stay right under any 2 changes" in text
    assert "50 changes" not in text and "1,000,000" not in text and "10,000" in text
    assert lied.sections[0].verdict.headline.startswith("Certified: 68.0 %")


def test_certificate_that_was_changed_is_refused(make_certificate: Any) -> None:
    path = make_certificate() / "certificate.json"
    path.write_text(path.read_text().replace("9999", "9998", 1))
    with pytest.raises(DoorwardError, match="does not fit its hash"):
        compose(path.parent)


@pytest.mark.parametrize("changes", [{"certified_accuracy": {}}, {"certified_accuracy": {"0": 1.2}}, {"trials": -1}])
def test_certificate_summary_out_of_range(make_certificate: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(DoorwardError, match="expected"):
        compose(make_certificate(**changes))


def test_runs_that_no_folder_tells_apart_have_as_much_of_their_way_as_they_need(make_run: Any) -> None:
    runs = [make_run(name) for name in ("a/run", "b/run", "b/other")]
    assert [section.run.name for section in compose(runs).sections] == ["a/run", "b/run", "other"]


def test_runs_of_equal_names_are_told_apart(make_run: Any) -> None:
    page = compose([make_run("a/cleanse", kinds=("impurity",)), make_run("b/cleanse", kinds=("impurity",))])
    assert [s.run.name for s in page.sections] == ["a", "b"]


def test_a_control_is_scored_without_an_attack(make_run: Any) -> None:
    run = make_run(scored=True, kinds=("impurity",))
    score = json.loads((run / "score.json").read_text())
    score["attack"] = None
    (run / "score.json").write_text(json.dumps(score))
    page = compose(run)
    assert "every flag is a false one" in page.html
    assert page.sections[0].overview["Attack (ground truth)"].text == "none"


def test_runs_of_both_verbs_get_a_table_each(finished_run: Path, make_certificate: Any) -> None:
    page = Parsed(compose([finished_run, make_certificate()]).html)
    assert len([t for t in page.all("table") if "overview" in (t.get("class") or "")]) == 2
    targets = {a["href"] for a in page.all("a")}
    assert (
        targets == {"#run-1", "#run-2"} == {f"#{h['id']}" for h in page.all("h2") if h.get("id", "").startswith("run")}
    )


def test_sections_are_found_by_their_module() -> None:
    assert {"certify", "cleanse"} <= set(supported())
    assert not any(name.startswith("_") for name in supported())


@pytest.mark.parametrize("name", ["run.json", "samples.parquet", "thumbnails.npy", "score.json"])
@pytest.mark.parametrize("harm", ["cut", "empty", "missing", "noise"])
def test_harmed_files_are_one_clear_line(finished_run: Path, tmp_path: Path, name: str, harm: str) -> None:
    if (name, harm) == ("score.json", "missing"):
        pytest.skip("a run without ground truth is whole")
    run = shutil.copytree(finished_run, tmp_path / "run")
    whole = (run / name).read_bytes()
    if harm == "missing":
        (run / name).unlink()
    else:
        (run / name).write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "noise": b"\x80\x02}q\x00." * 9}[harm])
    with pytest.raises(DoorwardError) as caught:
        report(run, tmp_path / "report.html")
    line = str(caught.value)
    assert "\n" not in line and "expected" in line and (name in line or harm == "missing")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("images", "counts"), [400] * 9),
        (("images", "classes"), ["one"]),
        (("images", "sha256"), None),
        (("methods",), {}),
        (("methods", "impurity", "flagged"), -1),
        (("methods", "impurity", "groups", 0, "label"), 10),
        (("methods", "unknown"), {"flagged": 0}),
        (("thumbnails", "typical", "0"), [10**6]),
        (("thumbnails", "typical", "0"), [-1]),
        (("thumbnails", "typical", "0"), "all"),
    ],
)
def test_results_that_do_not_fit_are_one_clear_line(finished_run: Path, tmp_path: Path, where: Any, value: Any) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    manifest = json.loads((run / "run.json").read_text())
    place = manifest["results"]
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    (run / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(DoorwardError) as caught:
        compose(run)
    assert "\n" not in str(caught.value) and "expected" in str(caught.value)


def test_thumbnails_with_a_pickle_are_refused(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    np.save(run / "thumbnails.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DoorwardError, match=r"thumbnails\.npy: cannot be read"):
        compose(run)


def test_a_folder_name_is_no_pattern(finished_run: Path, tmp_path: Path) -> None:
    assert compose(shutil.copytree(finished_run, tmp_path / "run [a] *?'")).has_findings


def test_other_verbs_and_no_runs_are_refused(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**manifest, "verb": "attack"}))
    with pytest.raises(
        DoorwardError, match="written by 'doorward attack'; expected a run of audit or certify or cleanse"
    ):
        compose(run)
    with pytest.raises(DoorwardError, match="at least one"):
        compose([])
    with pytest.raises(DoorwardError, match=r"holds no run\.json"):
        compose(tmp_path / "absent")


def test_an_existing_output_is_kept_unless_told(finished_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    output.write_text("mine")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        report(finished_run, output)
    assert output.read_text() == "mine"
    report(finished_run, output, overwrite=True)
    assert output.read_text().startswith("<!doctype html>")
    with pytest.raises(OutputExistsError, match="is a folder"):
        report(finished_run, tmp_path, overwrite=True)
    with pytest.raises(DoorwardError, match="cannot be written"):
        report(finished_run, output / "below.html")
