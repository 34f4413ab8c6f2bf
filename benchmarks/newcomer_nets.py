"""Two nets as a newcomer writes them: a strided CNN and a small ViT, for pictures of 96 x 96."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def own_cnn(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Four strided convolutions, each halving the sides, then two linear layers."""
    layers: list[nn.Module] = []
    before = shape[0]
    for width in (24, 48, 96, 96):
        layers += [nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    places = (shape[1] // 16) * (shape[2] // 16)
    head = [nn.Flatten(), nn.Linear(before * places, 128), nn.ReLU(), nn.Linear(128, classes)]
    return nn.Sequential(*layers, *head)


class OwnViT(nn.Module):
    """Square patches to tokens, a learned place for each, a few encoder layers, the mean token to the classes."""

    def __init__(self, shape: tuple[int, int, int], classes: int, patch: int = 12, width: int = 64, depth: int = 2):
        super().__init__()
        tokens = (shape[1] // patch) * (shape[2] // patch)
        self.patches = nn.Conv2d(shape[0], width, patch, stride=patch)
        self.places = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]``."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.encoder(tokens).mean(dim=1)))


def own_vit(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The ViT with patches of an eighth of the side."""
    return OwnViT(shape, classes, patch=shape[1] // 8)
