"""Audit a network of your own with a few clean images: is there a backdoor, what triggers it, can it be removed?"""

# %% A suspect network: any torch.nn.Module. This one is trained here, on digits of which 3 % carry a patch.
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import Tensor, nn

import doorward as dw


class Net(nn.Module):
    """Two convolutions and a head; the input of the last linear layer is what Doorward takes for features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, 10] of images [B, 1, 28, 28]."""
        logits: Tensor = self.head(self.body(images))
        return logits


torch.manual_seed(1)
poisoned = dw.attack(dw.load_images("mnist-5k"), "patch", target=0, rate=0.03, seed=1).images
suspect = dw.Classifier.from_module(Net(), like=poisoned, mean=0.13, std=0.31)  # as your network was trained
dw.train(poisoned, start=suspect, seed=1)

# %% Look for a trigger with clean images that the network has not seen.
clean = dw.load_images("mnist-5k", split="test")
found = dw.invert(suspect, clean)
print(found)
print(found.table())

# %% Train on with the triggers on truly labelled images: the network unlearns them.
repaired = dw.repair(suspect, clean, found)
print(repaired)
print(repaired.table())

# %% Both on one page; the repaired network is an nn.Module again.
place = Path(mkdtemp(prefix="doorward-"))
print(dw.report([found, repaired], place / "audit.html"))
torch.save(repaired.classifier.net.state_dict(), place / "repaired.pt")
