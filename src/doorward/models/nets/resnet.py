"""Residual nets for small images (He, Zhang, Ren and Sun 2016)."""

from __future__ import annotations

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = nn.Identity()
        if not same:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` to ``[B, outputs, H / stride, W / stride]``."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + self.shortcut(x))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A stem, stages of basic blocks, global average pooling, one linear layer."""

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        )
        layers: list[nn.Module] = [stem]
        inputs = widths[0]
        for stage, outputs in enumerate(widths):
            for block in range(blocks):
                layers.append(BasicBlock(inputs, outputs, 2 if stage > 0 and block == 0 else 1))
                inputs = outputs
        self.body = nn.Sequential(*layers)
        self.output = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, K]`` of normalised images ``[B, C, H, W]``."""
        features = self.body(x).mean(dim=(2, 3))
        return self.output(features)  # type: ignore[no-any-return]


def resnet20(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-20 for CIFAR: three stages of three blocks, 16, 32, 64 channels, 64 features, 0.27 M weights."""
    return ResNet(shape[0], classes, (16, 32, 64), 3)


def resnet18(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-18 in its CIFAR form (3x3 stem, no pooling): 64 to 512 channels, 512 features, 11 M weights."""
    return ResNet(shape[0], classes, (64, 128, 256, 512), 2)
