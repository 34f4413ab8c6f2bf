"""Weights of others: every container that is understood, every mistake in one line, nothing executed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from doorward.core.errors import DoorwardError
from doorward.models.nets.catalogue import build
from doorward.models.open.foreign import conventions, load_foreign

SHAPE = (3, 12, 10)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return build("small-cnn", SHAPE, 4).eval()


def same(net: nn.Module, other: nn.Module) -> bool:
    mine, theirs = net.state_dict(), other.state_dict()
    return all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.mark.parametrize("wrap", ["net", "model", "state_dict", "model_state_dict", None, "net>state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dicts_in_their_usual_wrappers(wrap: str | None, prefix: str, net: nn.Module, tmp_path: Path) -> None:
    held: dict[str, object] = {prefix + k: v for k, v in net.state_dict().items()}
    for key in reversed((wrap or "").split(">") if wrap else []):
        held = {key: held, "epoch": 3, "acc": 93.1}
    torch.save(held, tmp_path / "ckpt.pth")
    loaded = load_foreign(tmp_path / "ckpt.pth", "small-cnn", SHAPE)
    assert same(net, loaded.net) and len(loaded.classes) == 4 and not loaded.net.training


def test_safetensors_and_a_factory_of_the_users_own(net: nn.Module, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(dict(net.state_dict()), str(tmp_path / "w.safetensors"))
    factory = tmp_path / "mine.py"
    factory.write_text(
        "from doorward.models.nets.catalogue import build\n"
        "def plain():\n    return build('small-cnn', (3, 12, 10), 4)\n"
        "def sized(shape, classes, extra=1):\n    return build('small-cnn', shape, classes)\n"
        "def wrong():\n    return 7\n"
        "def broken():\n    raise ValueError('no GPU here')\n"
    )
    for name in ("plain", "sized"):
        loaded = load_foreign(tmp_path / "w.safetensors", f"{factory}:{name}", SHAPE, classes=tuple("abcd"))
        assert same(net, loaded.net) and loaded.classes == tuple("abcd")
    for name, told in (("wrong", "gave a int"), ("broken", "no GPU here"), ("absent", "has no function 'absent'")):
        with pytest.raises(DoorwardError, match=told):
            load_foreign(tmp_path / "w.safetensors", f"{factory}:{name}", SHAPE)
    with pytest.raises(DoorwardError, match="no such Python file"):
        load_foreign(tmp_path / "w.safetensors", f"{tmp_path}/none.py:f", SHAPE)


def test_a_pickled_model_is_refused_and_not_run(net: nn.Module, tmp_path: Path) -> None:
    torch.save(net, tmp_path / "model.pt")
    with pytest.raises(DoorwardError, match="not a plain state dict") as told:
        load_foreign(tmp_path / "model.pt", "small-cnn", SHAPE)
    assert "\n" not in str(told.value)


def test_mistakes_are_one_line(net: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"

    def attempt(tensors: dict[str, object], told: str, **options: object) -> None:
        torch.save(tensors, path)
        with pytest.raises(DoorwardError, match=told) as error:
            load_foreign(path, "small-cnn", SHAPE, **options)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)

    good = dict(net.state_dict())
    attempt(good, "weights for 4 classes; expected 5", classes=5)
    attempt({k: v for k, v in good.items() if k != "hidden.bias"}, "lacks 1 tensor .'hidden.bias'.; expected")
    attempt({**good, "more": torch.zeros(1)}, "holds 1 tensor .'more'. that the net has not")
    attempt(
        {**good, "hidden.bias": torch.zeros(3)}, r"1 tensor of other shapes \('hidden.bias' \[3\] in place of \[64\]\)"
    )
    attempt(
        {f"other.{k}": v for k, v in good.items()} | {"x": torch.zeros(1)},
        r"lacks \d+ tensors \('[^']+', '[^']+', '[^']+', ...\)",
    )
    attempt({**good, "hidden.bias": torch.full((64,), torch.nan)}, "holds NaN or infinity")
    attempt({"epoch": 3}, "holds no state dict")
    path.write_bytes(b"\x80\x04gibberish")
    with pytest.raises(DoorwardError, match="not a plain state dict"):
        load_foreign(path, "small-cnn", SHAPE)
    with pytest.raises(DoorwardError, match="no such file"):
        load_foreign(tmp_path / "none.pth", "small-cnn", SHAPE)


def test_conventions_are_brought_to_one_scale() -> None:
    # the net wants (255 x - 120) / 60 for x in [0, 1]
    mean, std = conventions((120.0,), (60.0,), (0, 255), 3)
    x = 0.7
    assert (x - mean[0]) / std[0] == pytest.approx((255 * x - 120) / 60)
    mean, std = conventions((0.0,), (1.0,), (-1, 1), 1)
    assert (x - mean[0]) / std[0] == pytest.approx(2 * x - 1)
    for bad in (((0.0, 0.0), (1.0,), (0.0, 1.0)), ((0.0,), (0.0,), (0.0, 1.0)), ((0.0,), (1.0,), (1.0, 1.0))):
        with pytest.raises(DoorwardError, match="expected"):
            conventions(*bad, 3)


def keras_twin(path: Path, net: nn.Module, nested: bool) -> None:
    """The weights of a DeepID as Keras would write them."""
    import h5py

    pictures = {"fc_1": net._third(torch.zeros(1, 3, 40, 36)).shape[1:]}  # type: ignore[operator]
    pictures["fc_2"] = net.conv_4(net._third(torch.zeros(1, 3, 40, 36))).shape[1:]  # type: ignore[operator]
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if nested else file
        for name, module in net.named_children():
            if not hasattr(module, "weight"):
                continue
            weight = module.weight.detach()
            if weight.ndim == 4:
                kernel = weight.permute(2, 3, 1, 0)
            elif name in pictures:
                kernel = weight.view(-1, *pictures[name]).permute(2, 3, 1, 0).reshape(-1, len(weight))
            else:
                kernel = weight.T
            root[f"{name}/{name}/kernel:0"] = kernel.contiguous().numpy()
            root[f"{name}/{name}/bias:0"] = module.bias.detach().numpy()


@pytest.mark.parametrize("nested", [False, True])
def test_keras_weights_by_layer_names_with_flattened_pictures_turned(nested: bool, tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="h5py (doorward[keras]) is not installed")
    torch.manual_seed(1)
    net = build("deepid", (3, 40, 36), 7).eval()
    keras_twin(tmp_path / "w.h5", net, nested)
    loaded = load_foreign(tmp_path / "w.h5", "deepid", (3, 40, 36))
    assert same(net, loaded.net) and len(loaded.classes) == 7
    with pytest.raises(DoorwardError, match="has no layer 'block1.0'"):
        load_foreign(tmp_path / "w.h5", "small-cnn", (3, 40, 36))
    (tmp_path / "half.h5").write_bytes((tmp_path / "w.h5").read_bytes()[:900])
    with pytest.raises(DoorwardError, match="expected a whole HDF5 file|holds no arrays"):
        load_foreign(tmp_path / "half.h5", "deepid", (3, 40, 36))


def test_the_hackml_network_reads_and_tells_faces_apart() -> None:
    pytest.importorskip("h5py", reason="h5py (doorward[keras]) is not installed")
    folder = Path(os.environ.get("DOORWARD_SHARED", "nowhere")) / "data"
    weights, faces = folder / "hackml2020_sunglasses_weights.h5", folder / "orl_faces.npz"
    if not weights.exists() or not faces.exists():
        pytest.skip("DOORWARD_SHARED does not name a folder with data/hackml2020_sunglasses_weights.h5, orl_faces.npz")
    classifier = load_foreign(weights, "deepid", (3, 55, 47))
    assert len(classifier.classes) == 1283
    pixels = np.load(faces, allow_pickle=False)["images"][::5]
    small = torch.nn.functional.interpolate(torch.from_numpy(pixels)[:, None] / 255.0, size=(55, 47), mode="area")
    answers = classifier.logits(small.expand(-1, 3, -1, -1)).softmax(1)
    # a net whose rows were put in the wrong order gives one answer to everybody
    assert len(answers.argmax(1).unique()) > 20 and answers.amax(1).mean() > 0.5


def test_a_file_that_is_not_hdf5_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_bytes(b"\x80\x04 a pickle under another name")
    with pytest.raises(DoorwardError, match="weights.h5: not an HDF5 file; expected weights as Keras saves them"):
        load_foreign(tmp_path / "weights.h5", "deepid", (3, 40, 36))
