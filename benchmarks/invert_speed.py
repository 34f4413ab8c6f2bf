"""Trigger inversion of ten classes, beside the same optimisation one class and one generator at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.table import spread, write
from doorward.core.classifier import Classifier
from doorward.inversion.distribution.generators import generate, make_generators
from doorward.inversion.distribution.information import make_statistics, statistics, trainable_bound
from doorward.inversion.methods.mask import MaskObjective, MaskSettings, squash
from doorward.inversion.methods.mask import start as start_masks
from doorward.inversion.methods.mesa import MesaObjective, MesaSettings
from doorward.inversion.methods.mesa import start as start_generators
from doorward.inversion.search.frozen import Frozen
from doorward.inversion.search.loop import optimise
from doorward.inversion.search.scene import Scene
from doorward.models.nets.catalogue import build

CLASSES, BATCH, ROUNDS = 10, 32, 3


def make_classifier() -> Classifier:
    """ResNet-20 for CIFAR-10, untrained: speed does not hang on the weights."""
    torch.manual_seed(0)
    names = tuple(str(k) for k in range(CLASSES))
    return Classifier(build("resnet20", (3, 32, 32), CLASSES).eval(), "resnet20", names, (3, 32, 32), (0.5,), (0.25,))


def plain_mask(classifier: Classifier, images: Tensor, labels: Tensor, steps: int) -> None:
    """Neural Cleanse as it is usually written: a class at a time, weights taking gradients, a number read per step."""
    generator = torch.Generator().manual_seed(0)
    for label in range(CLASSES):
        mask = torch.zeros(1, 1, 32, 32, requires_grad=True)
        pattern = torch.zeros(1, 3, 32, 32, requires_grad=True)
        optimiser = torch.optim.Adam([mask, pattern], lr=0.1, betas=(0.5, 0.9))
        target = torch.full((BATCH,), label)
        for _ in range(steps):
            rows = torch.randint(len(images), (BATCH,), generator=generator)
            opacity = squash(mask)
            logits = classifier.logits((1 - opacity) * images[rows] + opacity * squash(pattern))
            loss = functional.cross_entropy(logits, target) + 1e-3 * opacity.sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            (logits.argmax(1) == target).float().mean().item()


def plain_mesa(classifier: Classifier, images: Tensor, s: MesaSettings, steps: int) -> None:
    """One generator at a time: a step of the generator, a step of the statistics network, one place per batch."""
    side, points = s.size, 3 * s.size**2
    for label in range(CLASSES):
        for beta in s.betas():
            generator = torch.Generator().manual_seed(0)
            net = {k: v.requires_grad_() for k, v in make_generators(1, s.noise, points, s.width, generator).items()}
            judge = {k: v.requires_grad_() for k, v in make_statistics(1, points, s.noise, s.width, generator).items()}
            first, second = (torch.optim.Adam(p.values(), lr=s.lr, betas=(0.5, 0.999)) for p in (net, judge))
            average = torch.zeros(1)
            for _ in range(steps):
                rows = torch.randint(len(images), (s.batch,), generator=generator)
                top, left = torch.randint(32 - side + 1, (2,), generator=generator).tolist()
                for optimiser in (first, second):
                    noise, other = torch.rand(2, 1, s.batch, s.noise, generator=generator)
                    made = generate(net, noise) + s.blur * torch.randn(1, s.batch, points, generator=generator)
                    information, average = trainable_bound(*statistics(judge, made, noise, other), average, s.average)
                    loss = -information.sum()
                    if optimiser is first:
                        stamped = images[rows].clone()
                        patch = made[0].view(-1, side, side, 3).permute(0, 3, 1, 2)
                        stamped[:, :, top : top + side, left : left + side] = patch
                        chance = classifier.logits(stamped).softmax(1)[:, label]
                        loss = s.alpha * loss - chance.clamp(max=beta).mean()
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                loss.item()


def timed(run: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Seconds of each round."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return found


def compare(mine: Callable[[], object], theirs: Callable[[], object], passes: int, rounds: int) -> tuple[str, str, str]:
    """Image passes per second of both, and their ratio, round by round."""
    mine()  # the first call pays for the choice of kernels
    ours, plain = timed(mine, rounds), timed(theirs, rounds)
    ratio = [b / a for a, b in zip(ours, plain, strict=True)]
    return spread([passes / t for t in ours], 0), spread([passes / t for t in plain], 0), spread(ratio, 2)


def main(mask_steps: int = 4, mesa_steps: int = 2, rounds: int = ROUNDS) -> None:
    """Measure and write the table."""
    classifier, generator = make_classifier(), torch.Generator().manual_seed(0)
    images = torch.rand(256, 3, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
    labels = torch.full((256,), CLASSES)  # of no class, so that every image counts everywhere
    rows = []
    for precision in ("fp32", "auto"):
        scene = Scene(Frozen(classifier, precision), images.permute(0, 2, 3, 1), labels)
        m = MaskSettings(steps=mask_steps, batch=BATCH, precision=precision)
        e = MesaSettings(steps=mesa_steps, batch=BATCH, precision=precision)
        masks, generators = start_masks(scene, m, 0), start_generators(scene, e, list(range(CLASSES)), 0)
        found = compare(
            partial(optimise, MaskObjective(scene, m), masks, m, seed=0),
            partial(plain_mask, classifier, images, labels, mask_steps),
            mask_steps * BATCH * len(masks),
            rounds,
        )
        rows.append(["mask", precision, *found])
        found = compare(
            partial(optimise, MesaObjective(scene, e), generators, e, seed=0),
            partial(plain_mesa, classifier, images, e, mesa_steps),
            mesa_steps * BATCH * len(generators),
            rounds,
        )
        rows.append(["mesa", precision, *found])
    told = (
        f"ResNet-20, ten classes, {BATCH} images per class and step; `mesa` with three levels per class. Image passes "
        "per second, median and range over the rounds. The reference is fp32, one class (one generator) at a time, "
        "its weights taking gradients; `auto` is bf16 where the processor has it."
    )
    write(
        "invert_speed",
        "Speed of trigger inversion",
        told,
        ["method", "precision", "doorward", "reference", "ratio"],
        rows,
    )


if __name__ == "__main__":
    main()
