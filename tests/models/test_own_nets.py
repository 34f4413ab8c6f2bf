"""Nets of the user's own: every factory, every output, every container there and back, every mistake in one line."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import doorward as dw
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.inversion.search.frozen import Frozen
from doorward.models.files import save_classifier, save_like
from doorward.models.folding import fold_batch_norm
from doorward.models.nets.catalogue import build
from doorward.models.open.conventions import check_conventions
from doorward.models.open.load import load_model
from doorward.models.open.matching import fit_images, match_classes
from doorward.models.open.together import Opening
from tests.conftest import make_images
from tests.models.test_foreign import keras_twin

MINE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=3, form="tensor"):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 5), nn.BatchNorm2d(6), nn.Linear(6, classes)
        self.form = form

    def forward(self, x):
        features = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        logits = self.head(features)
        return {"tensor": logits, "tuple": (features[:1], logits)[::-1], "dict": {"features": features,
                "logits": logits}, "object": Output(logits)}[self.form]

class Output:
    def __init__(self, logits):
        self.logits = logits

def plain(): return Net()
def counted(classes): return Net(classes)
def shaped(shape, classes): return Net(classes)
def optional(num_classes=10): return Net(num_classes)
def greedy(a, b, c): return Net()
def failing(classes): raise ValueError("no GPU here\\nand more")
def number(): return 7
def as_tuple(): return Net(form="tuple")
def as_dict(): return Net(form="dict")
def as_object(): return Net(form="object")
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return f"{tmp_path / 'mine.py'}:"


@pytest.fixture
def net(mine: str) -> nn.Module:
    torch.manual_seed(0)
    return load_net(mine, "plain")


def load_net(mine: str, name: str) -> nn.Module:
    scope: dict[str, object] = {}
    exec(Path(mine[:-1]).read_text(), scope)
    return scope[name]().eval()  # type: ignore[operator]


def saved(net: nn.Module, path: Path) -> Path:
    save_file(dict(net.state_dict()), str(path))
    return path


@pytest.mark.parametrize("factory", ["plain", "counted", "shaped", "optional"])
def test_every_form_of_a_factory(factory: str, mine: str, net: nn.Module, images: ImageSet, tmp_path: Path) -> None:
    model = load_model(saved(net, tmp_path / "w.safetensors"), arch=mine + factory, like=images)
    told = model.describe()
    assert told["features"] == 6 and told["feature_layer"] == "head" and told["input"] == [3, 12, 10]
    assert told["classes_from"] == "the images, in their order" and model.classes == images.classes
    x = torch.rand(2, 3, 12, 10)
    assert torch.allclose(model.logits(x), net(x))


@pytest.mark.parametrize("form", ["as_tuple", "as_dict", "as_object"])
def test_what_a_net_gives_is_taken_apart_for_every_verb(
    form: str, mine: str, net: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    model = load_model(saved(net, tmp_path / "w.safetensors"), arch=mine + form, like=images)
    x = torch.rand(2, 3, 12, 10)
    assert torch.allclose(model.logits(x), net(x)) and list(model.net.state_dict()) == list(net.state_dict())
    with model.watching_features() as seen:
        model.logits(x)
    assert seen[0].shape == (2, 6)
    folded = fold_batch_norm(model.net, x)
    assert (folded is not model.net) == (form != "as_object"), "an object of unknown kind cannot be traced"
    assert torch.allclose(folded(x), net(x), atol=1e-5)
    frozen = Frozen(model, "fp32")
    assert torch.allclose(frozen.logits(frozen.normalise(x.permute(0, 2, 3, 1))), net(x), atol=1e-5)
    further = dw.train(images, start=model, settings=dw.models.train.settings.TrainSettings(epochs=1, batch=16))
    found = dw.cleanse(images, further, ["spectral"])
    assert found is not None and not isinstance(load_net(mine, form)(x), Tensor)


def test_the_users_own_module_goes_on_as_it_was(mine: str, images: ImageSet) -> None:
    module = load_net(mine, "as_dict")
    model = dw.train(images, module, dw.models.train.settings.TrainSettings(epochs=1, batch=16))
    assert isinstance(module(torch.rand(2, 3, 12, 10)), dict) and model.arch == "Net"
    assert not torch.equal(model.net.head.weight, module.head.weight), "it was copied"  # type: ignore[union-attr]
    by_factory = dw.train(images, lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(360, classes)))
    assert by_factory.predict(images.pixels).shape == (60,)


def test_mistakes_are_one_line(mine: str, net: nn.Module, images: ImageSet, tmp_path: Path) -> None:
    path = saved(net, tmp_path / "w.safetensors")
    small = ImageSet(images.pixels[:, :4, :4], images.labels, images.classes)
    five = make_images(classes=5)

    def attempt(told: str, weights: Path = path, **options: object) -> None:
        with pytest.raises(DoorwardError, match=told) as error:
            load_model(weights, **{"like": images, **options})  # type: ignore[arg-type]
        assert "\n" not in str(error.value)

    attempt("weights alone; expected --arch with them: two-layer", mean=(0.5,))
    attempt("no such file or folder", tmp_path / "none.pth", mean=(0.5,))
    attempt("must be given a, b, c; expected f.., f.classes. or f.shape, classes.", arch=mine + "greedy")
    attempt("called with .3., it raised ValueError: no GPU here and more; expected a net", arch=mine + "failing")
    attempt("gave a int; expected a torch.nn.Module", arch=mine + "number")
    attempt(r"does not take images of 3x4x4 \(.*[Kk]ernel size", arch=mine + "plain", like=None, size=4)
    attempt("weights for 3 classes; made-up with 5 classes: class-0", arch=mine + "plain", like=five)
    attempt("weights for 3 classes; expected 5", arch=mine + "counted", classes=5)
    attempt(
        "lacks 14 tensors .'block1.0.weight', .* and holds 9 tensors .'conv.bias', .* that the net has not; ",
        arch="small-cnn",
    )
    attempt("no layer 'tail'", arch=mine + "plain", feature_layer="tail")
    attempt("net 'resnet9000'; expected one of two-layer", arch="resnet9000")
    attempt("the size of the images is not known", arch=mine + "plain", like=None)
    attempt("timm is not installed .*needs torchvision", arch="timm:resnet18")
    attempt("holds no classifier.json; expected a folder written by", tmp_path)
    huge = {k: v.double() for k, v in net.state_dict().items()} | {
        "head.bias": torch.full((3,), 1e300, dtype=torch.float64)
    }
    save_file(huge, str(tmp_path / "huge.safetensors"))
    attempt("'head.bias' holds NaN or infinity", tmp_path / "huge.safetensors", arch=mine + "plain")
    torch.save(nn.Linear(2, 2), tmp_path / "pickled.pt")
    attempt(r"it names \S*Linear\); expected weights alone", tmp_path / "pickled.pt", arch=mine + "plain")
    guessed = load_model(path, arch=mine + "plain", like=small)
    assert guessed.shape == (3, 224, 224) and "found by trying" in guessed.notes[0]


def test_features_of_tokens_and_of_pictures() -> None:
    class Tokens(nn.Module):
        def __init__(self, class_token: bool) -> None:
            super().__init__()
            self.patches, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 3)
            if class_token:
                self.cls_token = nn.Parameter(torch.ones(1, 1, 8))

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            if hasattr(self, "cls_token"):
                tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1)
            return self.head(tokens)[:, 0]

    x = torch.rand(2, 3, 8, 8)
    for class_token in (False, True):
        net = Tokens(class_token)
        model = Classifier(net, "tokens", tuple("abc"), (3, 8, 8))
        with model.watching_features() as seen:
            model.logits(x)
        tokens = net.patches(x).flatten(2).mean(2)
        assert torch.allclose(seen[0], torch.ones(2, 8) if class_token else tokens, atol=1e-6)
    head = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert Classifier(head, "convolutions", tuple("abc"), (3, 8, 8)).check() == 5


@pytest.mark.parametrize("kind", ["safetensors", "module.", "state_dict", "lightning", "half", "folder"])
def test_weights_go_back_in_the_form_they_came_in(
    kind: str, mine: str, net: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    state = dict(net.state_dict())
    prefix = {"module.": "module.", "lightning": "model."}.get(kind, "")
    source = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    arch: str | None = mine + "counted"
    if kind == "half":
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    if kind == "safetensors":
        saved(net, source)
    elif kind == "folder":
        source, arch = tmp_path / "model", "small-cnn"
        source.mkdir()
        save_classifier(
            Classifier(build("small-cnn", images.shape, 3), "small-cnn", images.classes, images.shape), source
        )
    else:
        held = {prefix + k: v for k, v in state.items()}
        torch.save({"state_dict": held, "epoch": 7} if kind in ("state_dict", "lightning") else held, source)
    model = load_model(source, arch=arch, like=images)
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter += 0.25
    out, notes = save_like(model, source, arch, tmp_path / "out")
    again = load_model(out, arch=arch, like=images)
    pairs = zip(again.net.parameters(), model.net.parameters(), strict=True)
    assert all(torch.allclose(one, other, atol=1e-3) for one, other in pairs)
    assert notes == (("weights rounded to float16, as they came",) if kind == "half" else ())
    if kind == "safetensors":
        assert load_file(out).keys() == load_file(source).keys()
        load_net(mine, "plain").load_state_dict(load_file(out))  # the user's own script
    elif kind != "folder":
        held = torch.load(out, weights_only=True)
        inner = held.get("state_dict", held)
        assert list(inner) == [prefix + k for k in state] and held.get("epoch", 7) == 7
        load_net(mine, "plain").load_state_dict({k.removeprefix(prefix): v for k, v in inner.items()})
        assert all(v.dtype == state[k.removeprefix(prefix)].dtype for k, v in inner.items())


def test_keras_weights_go_back_into_keras(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="h5py (doorward[keras]) is not installed")
    torch.manual_seed(1)
    keras_twin(tmp_path / "w.h5", build("deepid", (3, 40, 36), 7).eval(), nested=True)
    model = load_model(tmp_path / "w.h5", arch="deepid", shape=(3, 40, 36))
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.mul_(0.5).add_(torch.rand_like(parameter))
    out, notes = save_like(model, tmp_path / "w.h5", "deepid", tmp_path / "out")
    again = load_model(out, arch="deepid", shape=(3, 40, 36))
    assert not notes and out.name == "w.h5"
    assert all(torch.equal(a, b) for a, b in zip(again.net.parameters(), model.net.parameters(), strict=True))


def test_a_folder_runs_no_file_that_only_it_names(mine: str, images: ImageSet, tmp_path: Path) -> None:
    settings = dw.models.train.settings.TrainSettings(epochs=1, batch=16)
    model = dw.train(images, mine + "counted", settings)
    (tmp_path / "model").mkdir()
    save_classifier(model, tmp_path / "model")
    with pytest.raises(DoorwardError, match=r"mine.py:counted, a file of somebody's own, which is not run unasked"):
        load_model(tmp_path / "model")
    again = load_model(tmp_path / "model", arch=mine + "counted")
    assert (again.predict(images.pixels) == model.predict(images.pixels)).all() and not again.notes
    Path(mine[:-1]).write_text(MINE + "\n# changed\n")
    assert "is another file than" in load_model(tmp_path / "model", arch=mine + "counted").notes[0]


def test_timm_nets_where_timm_is(monkeypatch: pytest.MonkeyPatch, images: ImageSet, tmp_path: Path) -> None:
    made: list[dict[str, object]] = []

    class Config:
        def to_dict(self) -> dict[str, object]:
            return {
                "mean": (0.5, 0.4, 0.3),
                "std": (0.2, 0.2, 0.2),
                "input_size": (3, 12, 10),
                "fixed_input_size": True,
            }

    def create_model(name: str, **options: object) -> nn.Module:
        made.append(options)
        return build("small-cnn", (3, 12, 10), int(str(options["num_classes"])))

    fake = types.SimpleNamespace(get_pretrained_cfg=lambda name: Config(), create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", fake)
    path = saved(build("small-cnn", (3, 12, 10), 3), tmp_path / "w.safetensors")
    model = load_model(path, arch="timm:vit_tiny")
    assert model.mean == (0.5, 0.4, 0.3) and model.shape == (3, 12, 10) and len(model.classes) == 3
    assert made[0] == {"pretrained": False, "num_classes": 3, "in_chans": 3, "img_size": (12, 10)}


def test_classes_are_matched_by_name(images: ImageSet) -> None:
    net = build("small-cnn", images.shape, 3)
    names = ("class-2", "class-0", "class-1")
    model = Classifier(net, "small-cnn", names, images.shape)
    matched = match_classes(images, model)
    assert matched.classes == names
    assert [names[k] for k in matched.labels] == [images.classes[k] for k in images.labels]
    assert match_classes(images, Classifier(net, "small-cnn", images.classes, images.shape)) is images
    other = Classifier(net, "small-cnn", ("class-0", "class-1", "dog"), images.shape)
    with pytest.raises(DoorwardError, match="without class 'dog' of the model, with class 'class-2' that it does not"):
        match_classes(images, other)
    with pytest.raises(DoorwardError, match="3 classes: class-0, .*decides between 2 classes: a, b"):
        match_classes(images, Classifier(net, "small-cnn", ("a", "b"), images.shape))


def test_foreign_pictures_fit_at_once() -> None:
    grey = make_images(count=20, classes=4, shape=(20, 14, 1))
    model = Classifier(build("small-cnn", (3, 10, 12), 3), "small-cnn", tuple("abc"), (3, 10, 12))
    fitted, notes, matched = fit_images(grey, model)
    assert not matched
    assert fitted.shape == model.shape and fitted.classes == model.classes
    assert (fitted.labels == model.predict(fitted.pixels)).all()
    assert [note.split(": ", 1)[1].split(",")[0] for note in notes] == [
        "grey images",
        "images of 20 x 14",
        "4 classes: class-0",
    ]
    assert notes[2].endswith("expected as many; the model's own decisions are taken for labels")
    assert "and cut at the longer side" in notes[1]
    flat = ImageSet(np.full((2, 30, 30, 3), (10, 100, 200), np.uint8), np.array([0, 1]), ("a", "b"))
    small = Classifier(build("small-cnn", (1, 10, 10), 2), "small-cnn", ("a", "b"), (1, 10, 10))
    made, notes, matched = fit_images(flat, small)
    assert matched
    assert len(notes) == 2 and np.unique(made.pixels).tolist() == [round(0.299 * 10 + 0.587 * 100 + 0.114 * 200)]


def test_a_question_about_the_model_alone_takes_any_pictures(
    mine: str, net: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    options = Opening(model=str(saved(net, tmp_path / "w.safetensors")), arch=mine + "counted", size=16)
    model, fitted, notes, own = options.open_on_others(make_images(classes=5, shape=(9, 9, 1)))
    told = [note for note in notes if "nats about" not in note]  # the net is untrained, and that is a warning
    assert fitted.shape == (3, 16, 16) and len(model.classes) == 3 and len(told) == 3 and not own
    model, fitted, notes, own = options.open_on_others(images)
    assert own and model.classes == images.classes and any("resized to 16 x 16" in note for note in notes)


def test_conventions_that_do_not_fit_can_be_a_warning(images: ImageSet) -> None:
    settings = dw.models.train.settings.TrainSettings(epochs=15, batch=16, lr=0.05)
    model = dw.train(images, "small-cnn", settings)
    plain = Classifier(model.net, model.arch, model.classes, model.shape, (0.0,), (1 / 2550,))
    with pytest.raises(DoorwardError, match="expected the range that it was trained with"):
        check_conventions(plain, images, labelled=True, name="model")
    (told,) = check_conventions(plain, images, labelled=True, name="model", refuse=False)
    assert "expected the range that it was trained with" in told
