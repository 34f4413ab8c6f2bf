"""Prove how many changed pixels and labels a training procedure withstands, and have the proof checked."""

# %% The digits 1 and 7: a hundred to train on, as many to certify.
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

import doorward as dw
from doorward.certification.recheck import recheck


def ones_and_sevens(images: dw.ImageSet, each: int) -> dw.ImageSet:
    """The first images of both classes, with labels 0 and 1."""
    rows = np.concatenate([np.flatnonzero(images.labels == digit)[:each] for digit in (1, 7)])
    labels = (images.labels[rows] == 7).astype(np.int64)
    return dw.ImageSet(images.pixels[rows], labels, ("1", "7"))


train = ones_and_sevens(dw.load_images("mnist-5k"), 50)
test = ones_and_sevens(dw.load_images("mnist-5k", split="test"), 50)

# %% 10,000 models, each trained on a noisy copy of the hundred digits. The attacker must not know the seed.
place = Path(mkdtemp(prefix="doorward-"))
kept = place / "trial-votes.gz"  # what each model votes, so that anyone can train some of them again
certificate = dw.certify(train, test, "nearest-centroid", trials=10_000, seed=20_261, trial_votes=kept)
for radius, rate in enumerate(certificate.curve()):
    print(f"{radius} changed cells: the right label is certain for {rate} % of the test digits")

# %% A deterministic rule goes further, without noise and with certainty.
further = dw.certify(train, test, "mean-distance")
print(further)

# %% Anyone can check a certificate: every label and radius is derived again, by other code.
certificate.save(place / "certificate.json")
checked = dw.verify(place / "certificate.json", train_sha256=train.hash, test_sha256=test.hash)
print(checked)

# %% With the data, twenty of the 10,000 models are trained again: invented votes would differ.
print(recheck(place / "certificate.json", train, test, replay=20))
