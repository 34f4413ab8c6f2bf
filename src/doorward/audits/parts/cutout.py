"""The trigger of suspects that bear it each in another place, size or pose: a window cut out of one of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.cleansers.parts.stamping import Pixels, Rows, chunks, success, tried_on
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float
from doorward.core.triggers import Trigger

_ASKED = 20  # suspects at most
_PART = 5  # of the side of a picture that a window takes: a fifth, 4 % of its area
_STRIDE = 4  # positions a window's side
_HANGS = 0.5  # probability of the label below which a decision hung on the window that was covered
_MOSTLY = 0.5  # share of the suspects whose decisions have to hang on one window
_TRIED = 100  # pictures of other classes that a window is laid on


def cut_out(images: ImageSet, model: Classifier, label: int, suspects: Rows, seed: int) -> Trigger | None:
    """The window of a suspect that sends most other pictures to the label, where suspects' decisions hang on windows.

    A poisoned image is decided by its trigger: where that is covered the model sees what the image shows. An image of
    the class is recognised by more than a twenty-fifth of it. So a window is moved over the suspects, filled with the
    median colour around it (occlusion, Zeiler and Fergus 2014), and the one that costs the label most is cut out and
    laid on pictures of other classes (Chou, Tramer and Pellegrino 2020, "SentiNet", do so with saliency maps). What
    suspects have in common at a place (`doorward.audits.parts.transfer`) leaves nothing of a trigger whose place, size
    or angle changes; this does.

    A window of a clean image may lead to its class, too: it is the experiment that tells them apart.

    Args:
        suspects: ``[N]``.

    Returns: None where most suspects are recognised whatever is covered, or there are none.
    """
    rows = np.flatnonzero(suspects & (images.labels == label))
    rows = np.random.default_rng(seed).permutation(rows)[:_ASKED]
    height, width = images.shape[1:]
    side = max(2, round(min(height, width) / _PART))
    corners = _corners(height, width, side)
    found = list[tuple[int, tuple[int, int]]]()
    for row in rows.tolist():
        left = _label_left(model, images.pixels[row], corners, side, label)
        if left.min() < _HANGS:
            found.append((row, corners[int(left.argmin())]))
    if not found or len(found) < _MOSTLY * len(rows):
        return None
    pictures = tried_on(images, label, suspects, seed, _TRIED)
    rates = [success(model.predict, _laid(pictures, images.pixels[row], at, side), label) for row, at in found]
    row, at = found[int(np.argmax(rates))]
    return _trigger(images.pixels[row], at, side)


def _corners(height: int, width: int, side: int) -> list[tuple[int, int]]:
    step = max(1, side // _STRIDE)
    return [(top, left) for top in range(0, height - side + 1, step) for left in range(0, width - side + 1, step)]


def _label_left(
    model: Classifier, picture: Pixels, corners: list[tuple[int, int]], side: int, label: int
) -> NDArray[np.float32]:
    """Probability of the label with each window covered, ``[corners]``."""
    covered = np.repeat(picture[None], len(corners), axis=0)
    for one, (top, left) in zip(covered, corners, strict=True):
        around = picture[max(0, top - 2) : top + side + 2, max(0, left - 2) : left + side + 2]
        one[top : top + side, left : left + side] = np.median(around.reshape(-1, around.shape[-1]), axis=0)
    found = []
    for some in chunks(covered, len(covered)):
        with torch.no_grad():
            logits = model.logits(to_float(covered[some], model.device))
        found.append(logits.softmax(1)[:, label].float().cpu().numpy())
    return np.concatenate(found)


def _laid(pictures: Pixels, source: Pixels, at: tuple[int, int], side: int) -> Pixels:
    """Pictures with a window of another one at its place."""
    made, (top, left) = pictures.copy(), at
    made[:, top : top + side, left : left + side] = source[top : top + side, left : left + side]
    return made


def _trigger(source: Pixels, at: tuple[int, int], side: int) -> Trigger:
    pattern = to_float(source[None])[0].contiguous()
    alpha = torch.zeros_like(pattern[:1])
    alpha[:, at[0] : at[0] + side, at[1] : at[1] + side] = 1
    return Trigger(pattern * alpha, alpha)
