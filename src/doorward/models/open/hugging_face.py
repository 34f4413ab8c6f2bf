"""Image classifiers in Hugging Face's layout: a local folder with ``config.json`` and ``model.safetensors``.

Nothing is downloaded, no code of the folder is run, no pickle is read.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from doorward.core.errors import DoorwardError, brief
from doorward.core.files import atomic_write
from doorward.core.outputs import giving_logits
from doorward.core.tensors import write_tensors
from doorward.models.nets.architecture import Architecture, Floats, Shape
from doorward.models.open.folder_files import WEIGHTS, check_beside, read_config, weight_shapes
from doorward.models.weights import unshared

_BESIDE = ("config.json", "preprocessor_config.json")


def is_folder(path: Path) -> bool:
    """Whether it is a folder with a configuration and weights as transformers writes them."""
    return (path / "config.json").is_file() and any((path / name).is_file() for name in WEIGHTS)


def of_folder(folder: Path, name: str) -> Architecture:
    """The architecture of a folder, with mean, deviation, size and class names from its configuration.

    Raises:
        DoorwardError: no ``config.json``, a broken one, or transformers is not installed.
    """
    if not (folder / "config.json").is_file():
        raise DoorwardError(f"{name}: {folder} holds no config.json; expected a local folder of transformers")
    _transformers()
    config, seen = read_config(folder)
    try:
        shape = _shape(config, seen)
        mean, std = _conventions(seen)
        classes = _class_names(config)
        _check_understood(shape, mean, std)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError, ZeroDivisionError) as error:
        raise DoorwardError(
            f"{folder}: its configuration cannot be read ({brief(error)}); expected one of transformers"
        ) from None
    told = f"{folder}: holds no preprocessor_config.json: mean 0 and std 1 are taken without --mean and --std"
    notes = () if seen else (told,)

    def make(shape: Shape, classes: int) -> nn.Module:
        return _from_config(folder, shape, classes)

    held = folder if is_folder(folder) else None
    return Architecture(name, make, True, shape, mean, std, classes, held, notes)


def _check_understood(shape: Shape | None, mean: Floats | None, std: Floats | None) -> None:
    if shape is not None and not (min(shape) > 0 and shape[0] <= 256 and shape[1] * shape[2] <= 2**22):
        raise ValueError(f"images of {'x'.join(map(str, shape))}")
    if not all(map(math.isfinite, (*(mean or ()), *(std or ())))) or min(std or (1.0,)) <= 0:
        raise ValueError(f"mean {mean}, std {std}")


def _class_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names by number; None where they are transformers' own LABEL_0, LABEL_1 ..., which name nothing."""
    labels = {int(k): str(v) for k, v in (config.get("id2label") or {}).items()}
    if not labels or sorted(labels) != list(range(len(labels))):
        return None
    names = tuple(labels[k] for k in range(len(labels)))
    return None if names == tuple(f"LABEL_{k}" for k in range(len(labels))) else names


def _shape(config: Mapping[str, Any], seen: Mapping[str, Any]) -> Shape | None:
    """Channels, height, width: of the crop, of the resizing, or of the net itself; None where nothing says."""
    size = seen.get("crop_size") if seen.get("do_center_crop") else None
    size = size or seen.get("size") or config.get("image_size")
    if isinstance(size, Mapping):
        size = (size["height"], size["width"]) if "height" in size else size.get("shortest_edge")
    if size is None:
        return None
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(config.get("num_channels", 3)), int(height), int(width)


def _conventions(seen: Mapping[str, Any]) -> tuple[Floats | None, Floats | None]:
    """Mean and deviation on the scale [0, 1] of what the folder's own preparation does."""
    if not seen:
        return None, None
    scale = 255 * float(seen.get("rescale_factor", 1 / 255)) if seen.get("do_rescale", True) else 255.0
    normal = seen.get("do_normalize", True) and seen.get("image_mean") and seen.get("image_std")
    mean, std = (seen["image_mean"], seen["image_std"]) if normal else ((0.0,), (1.0,))
    return tuple(float(m) / scale for m in mean), tuple(float(s) / scale for s in std)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise DoorwardError("hf: transformers is not installed; expected pip install 'doorward[hf]'") from None
    return transformers


@contextmanager
def _quiet(folder: Path) -> Iterator[Any]:
    """transformers without its bars and warnings on stderr; what it raises becomes one line."""
    transformers = _transformers()
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    except DoorwardError:
        raise
    except Exception as error:  # whatever transformers meets in files that anyone may have written
        raise DoorwardError(f"{folder}: {brief(error)}; expected an image classifier of transformers") from None
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_EAGER = {"attn_implementation": "eager"}  # I-BAU needs second derivatives, which fused attention has not


def _from_config(folder: Path, shape: Shape, classes: int) -> nn.Module:
    with _quiet(folder) as transformers:
        config = transformers.AutoConfig.from_pretrained(str(folder), **_LOCAL)
        config.num_labels = classes
        if hasattr(config, "image_size"):
            config.image_size = shape[1] if shape[1] == shape[2] else list(shape[1:])
        if hasattr(config, "num_channels"):
            config.num_channels = shape[0]
        model = transformers.AutoModelForImageClassification
        return giving_logits(model.from_config(config, trust_remote_code=False, **_EAGER))


def load_folder(folder: Path) -> nn.Module:
    """The net with its weights.

    Raises:
        DoorwardError: weights that do not fit the configuration, or no image classifier.
    """
    _check_numbers(folder)
    with _quiet(folder) as transformers:
        net, told = transformers.AutoModelForImageClassification.from_pretrained(
            str(folder), use_safetensors=True, output_loading_info=True, **_LOCAL, **_EAGER
        )
    missing, extra = sorted(told["missing_keys"]), sorted(told["unexpected_keys"])
    if missing or extra:
        words = [f"has no tensor {missing[0]!r} ({len(missing)} missing)"] if missing else []
        words += [f"has a tensor {extra[0]!r} that the net has not ({len(extra)} extra)"] if extra else []
        raise DoorwardError(f"{folder}: {' and '.join(words)}; expected the weights of its config.json")
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
            raise DoorwardError(f"{folder}: tensor {name!r} holds NaN or infinity; expected finite weights")
    return giving_logits(net.float())


def _check_numbers(folder: Path) -> None:
    """Refuse a configuration of a net that is far larger than its weights, before memory is taken for it."""
    read_config(folder)
    check_beside(folder)
    held = sum(map(math.prod, weight_shapes(folder).values()))
    with _quiet(folder) as transformers, torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(str(folder), **_LOCAL)
        model = transformers.AutoModelForImageClassification
        net = model.from_config(config, trust_remote_code=False, **_EAGER)
    wanted = sum(tensor.numel() for tensor in net.state_dict().values())
    if wanted > 2 * held + 2**20:
        raise DoorwardError(
            f"{folder}: {held:,} numbers for a net of {wanted:,}; expected the weights of its config.json"
        )


def load_with_weights(folder: Path, tensors: Mapping[str, Tensor]) -> nn.Module:
    """As `load_folder`, with weights that lie elsewhere, under the names that transformers gives them in files."""
    with tempfile.TemporaryDirectory() as place:
        read_config(folder)
        shutil.copy(folder / "config.json", place)
        write_tensors(Path(place) / WEIGHTS[0], unshared(tensors), {"format": "pt"})
        return load_folder(Path(place))


def save_folder(net: nn.Module, source: Path, target: Path) -> None:
    """Write the weights under the names that the source has for them, with its configuration beside them."""
    with _quiet(source):
        net.save_pretrained(str(target), safe_serialization=True)  # type: ignore[operator]
    for name in _BESIDE:
        if (source / name).is_file():
            shutil.copy(source / name, target / name)


def save_config(net: nn.Module, path: Path, classes: tuple[str, ...]) -> None:
    """Write the configuration of a net of transformers, from which the same net is made again."""
    config = net.config.to_dict()  # type: ignore[operator, union-attr]
    config |= {"id2label": dict(enumerate(classes)), "label2id": {name: k for k, name in enumerate(classes)}}
    atomic_write(path, json.dumps(config, indent=1) + "\n")
