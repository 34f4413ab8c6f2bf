"""What the stages do: each writes one run, and goes on in it when it was killed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from doorward.attacks.files import load_attack, save_attack
from doorward.attacks.plan import Attack, BatchStamping
from doorward.attacks.rate import asr
from doorward.core.classifier import Classifier, measure_accuracy, pick_device
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float, to_uint8
from doorward.core.progress import telling
from doorward.core.results import RateRecord
from doorward.core.runs import Run
from doorward.core.tensors import write_tensors
from doorward.core.triggers import Trigger
from doorward.data.sources import load_images
from doorward.inversion.distribution.triggers import TriggerDistribution
from doorward.inversion.files import load_stamps
from doorward.inversion.job import InvertRequest, invert_to_folder
from doorward.inversion.search.stamping import corners, stamp_windows
from doorward.jobs.processes import Told
from doorward.models.files import load_classifier, save_classifier
from doorward.models.train.job import TrainRequest, train_to_folder
from doorward.models.train.loop import train
from doorward.papers.mesa.arms import PEERS, Arm, Inversion, stamps, verdict
from doorward.papers.mesa.plan import Case, Plan
from doorward.papers.mesa.results import ArmScore, AttackedRecord, SamplesRecord, SplitRecord, TruthScore
from doorward.repairs.apply import apply_repair
from doorward.repairs.methods.controls import FineTuneSettings, RefreshSettings, fine_tune, refresh
from doorward.repairs.methods.retrain import RetrainSettings, retrain
from doorward.repairs.parts.retraining import StampedSettings
from doorward.repairs.repaired import Repaired

ENOUGH = 0.95  # of training images: an attack that succeeds on so many is not trained further
SAMPLES, IMAGES = 150, 32  # in the figure: triggers per level, images per trigger
_GREY = 0.5  # behind transparent triggers in the figures
_TRIED = 1000  # training images on which the attacker looks at the own success


def split(plan: Plan, path: Path) -> None:
    """Divide the test images: what a defence has, and what it is measured on."""
    images = load_images(plan.source, split="test")
    with Run(path, "split", {"source": plan.source, "evaluated": plan.evaluated, "seed": plan.seed}) as run:
        search, evaluation = images.split(plan.evaluated, plan.seed)
        for name, part in (("search", search), ("evaluation", evaluation)):
            (run.work / name).mkdir(exist_ok=True)
            part.save(run.work / name)
        run.keep(SplitRecord(search=len(search), evaluation=len(evaluation)))


def train_clean(plan: Plan, path: Path, told: Told) -> None:
    """Train the net that every attack starts from."""
    request = TrainRequest(
        source=plan.source,
        net=plan.net,
        training=plan.clean.model_dump(),
        test=plan.source,
        seed=plan.seed,
        device=plan.device,
    )
    train_to_folder(request, path, command=plan.command, progress=telling(told, "clean net: "))


def attack_net(plan: Plan, case: Case, folder: Path, told: Told) -> None:
    """Fine-tune the clean net on batches that the attacker stamps, in rounds, until the trigger works."""
    images = load_images(plan.source)
    planned = case.attack(images.shape, plan.target, plan.seed)
    resolved = {**plan.manifest(), "case": case.about(), "sha256": images.hash}
    with Run(folder / case.name / "attack", "attack-net", resolved, command=plan.command) as run:
        save_attack(planned, run.work / "attack")
        classifier = load_classifier(folder / "clean", pick_device(plan.device))
        before = score(plan, folder, planned, classifier)
        stamping = BatchStamping(planned, plan.probability, len(images.classes))
        some = images.subset(np.random.default_rng(plan.seed).permutation(len(images))[:_TRIED])
        for number in range(plan.rounds):
            train(
                images,
                plan.net,
                plan.attack,
                seed=plan.seed + 1000 * (number + 1),
                device=plan.device,
                checkpoint=run.work / f"round-{number}.safetensors",
                progress=telling(told, f"{case.name}: attack, round {number + 1}, "),
                batch_attack=stamping,
                start=classifier,
            )
            if asr(classifier, some, planned, seed=plan.seed).value >= ENOUGH:
                break
        save_classifier(classifier, run.work)
        after = score(plan, folder, planned, classifier)
        run.keep(AttackedRecord(clean=before, before=after, rounds=number + 1))
        for path in run.work.glob("round-*.safetensors"):
            path.unlink()


def score(plan: Plan, folder: Path, attack: Attack, classifier: Classifier) -> TruthScore:
    """Clean accuracy, and success of the attacker's own trigger, on images that no defence sees."""
    evaluation = ImageSet.load(folder / "data" / "evaluation")
    accuracy, success = measure_accuracy(classifier, evaluation), asr(classifier, evaluation, attack, seed=plan.seed)
    return TruthScore(accuracy=RateRecord.of(accuracy), asr=RateRecord.of(success))


def search(plan: Plan, case: Case, inversion: Inversion, folder: Path, told: Told) -> None:
    """Look for triggers of the target class, of every class, or of the class that the mask's verdict names."""
    here = folder / case.name
    label = plan.target if inversion.knows_target else None
    if inversion.name == "mesa-unknown":
        label = verdict(here)
    request = InvertRequest(
        model=str(here / "attack"),
        source=str(folder / "data" / "search"),
        methods=(inversion.method,),
        settings={inversion.method: inversion.settings},
        knowledge={} if label is None else {"target_class": label},
        held_out=0,
        seed=plan.seed,
        device=plan.device,
    )
    progress = telling(told, f"{case.name}: invert {inversion.name}, ")
    invert_to_folder(request, here / f"invert-{inversion.name}", command=plan.command, progress=progress)


def repair(plan: Plan, case: Case, arm: Arm, folder: Path) -> None:
    """Repair the backdoored net by one arm and measure what is left; the repaired net itself is not kept."""
    here = folder / case.name
    resolved = {**plan.manifest(), "case": case.about(), "arm": arm.folder}
    with Run(here / arm.folder, "repair-arm", resolved, command=plan.command) as run:
        classifier = load_classifier(here / "attack", pick_device(plan.device))
        known = ImageSet.load(folder / "data" / "search")
        found = _repaired(plan, arm, here, classifier, known)
        measured = score(
            plan, folder, load_attack(here / "attack" / "attack"), found.classifier if found else classifier
        )
        run.keep(ArmScore(**dict(measured), told=arm.told, repaired=found is not None))


def _repaired(plan: Plan, arm: Arm, here: Path, classifier: Classifier, known: ImageSet) -> Repaired | None:
    """What the defence does with what it is told; None when its verdict found nothing to repair."""
    if arm.method == "refresh":
        return refresh(classifier, known, RefreshSettings(batch=plan.repair.batch, held_out=0), seed=plan.seed)
    if arm.method in PEERS:
        triggers = stamps(plan, arm, here) if arm.inversion else None
        return apply_repair(
            classifier, arm.method, triggers=triggers, knowledge={"clean_images": known}, seed=plan.seed
        )
    settings = plan.repair
    if arm.by_default:
        own = StampedSettings()
        settings = settings.model_copy(update={"lr": own.lr, "share": own.share})
    if arm.method == "fine-tune":
        tuning = FineTuneSettings(**settings.model_dump(exclude={"share"}))
        return fine_tune(classifier, known, tuning, seed=plan.seed)
    triggers = stamps(plan, arm, here)
    as_published = RetrainSettings(**settings.model_dump(), around=False)
    return retrain(classifier, known, triggers, as_published, seed=plan.seed) if triggers else None


def show(plan: Plan, case: Case, folder: Path) -> None:
    """Sample the distribution and measure every sample, the baseline's solutions and the true trigger by itself."""
    here = folder / case.name
    with Run(here / "shown", "samples", {**plan.manifest(), "case": case.about()}, command=plan.command) as run:
        classifier = load_classifier(here / "attack", pick_device(plan.device))
        evaluation = ImageSet.load(folder / "data" / "evaluation")
        (whole,) = load_stamps(here / "invert-mesa", "mesa", plan.target)
        assert isinstance(whole, TriggerDistribution)
        generator = torch.Generator().manual_seed(plan.seed)
        levels = range(len(whole.levels))
        drawn = [whole.draw(SAMPLES, generator, level=level) for level in levels]
        found = load_stamps(here / "invert-pixel", "pixel", plan.target)
        solutions = [(t.pattern[None], t.alpha[None]) for t in found if isinstance(t, Trigger)]
        true = case.pattern(classifier.shape[0], plan.seed)[None]
        shown = {"samples": drawn, "baseline": solutions, "true": [(true, torch.ones_like(true[:, :1]))]}
        tensors: dict[str, Tensor] = {"levels": torch.arange(len(levels)).repeat_interleave(SAMPLES)}
        for name, triggers in shown.items():
            patterns, alphas = (torch.cat(several) for several in zip(*triggers, strict=True))
            tensors[name] = alphas * patterns + (1 - alphas) * _GREY
            tensors[f"{name}_success"] = each_success(classifier, patterns, alphas, evaluation, plan.target, generator)
        write_tensors(run.work / "samples.safetensors", tensors)
        run.keep(SamplesRecord(levels=whole.levels, images_per_trigger=IMAGES))


def each_success(
    classifier: Classifier,
    patterns: Tensor,
    alphas: Tensor,
    images: ImageSet,
    target: int,
    generator: torch.Generator,
) -> Tensor:
    """Success rate ``[N]`` of every trigger on the same images of other classes, at random places.

    Args:
        patterns, alphas: ``[N, C, h, w]`` and ``[N, 1, h, w]``.
    """
    rows = np.flatnonzero(images.labels != target)[:IMAGES]
    clean = to_float(images.pixels[rows]).permute(0, 2, 3, 1)
    size, whole = (patterns.shape[2], patterns.shape[3]), (clean.shape[1], clean.shape[2])
    rates = []
    for pattern, alpha in zip(patterns.permute(0, 2, 3, 1), alphas.permute(0, 2, 3, 1), strict=True):
        top, left = corners(1, len(clean), whole, size, generator)
        stamped = stamp_windows(clean[None], pattern[None, None], alpha[None, None], top, left)[0]
        hits = classifier.predict(to_uint8(stamped.permute(0, 3, 1, 2))) == target
        rates.append(float(hits.mean()))
    return torch.tensor(rates)
