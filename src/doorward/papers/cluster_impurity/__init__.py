"""The benchmark of Xiang, Miller and Kesidis, "A benchmark study of backdoor poisoning", MLSP 2019.

CIFAR-10, one perturbed pixel, ResNet-20: poison, train, detect with spectral signatures (SS), activation clustering
(AC) and cluster impurity (CI), retrain on what is left; then attacks that the poster does not have, and controls.

`plan` says what runs, `stages` runs it, `collect` reads the runs, `tables`, `figures` and `write` show them. Every
stage is a run in a folder of its own, so a killed command goes on at the first stage that is not finished, a training
at its last epoch, with the same numbers in the same tables.

Several networks at once on one GPU: the stages of two cases share nothing but the control (``control/seed-S``), so the
command may be started several times on the same output folder, each with its own ``--only CASE``, and once more
without ``--only`` to fill in the rest and write the tables. ResNet-20 at batch 128 launches kernels faster than it
fills a large GPU, so four to eight such processes under NVIDIA's MPS daemon (``nvidia-cuda-mps-control -d``) are the
first thing to measure; CUDA streams inside one process compete for the interpreter, and stacking nets with
``torch.func.vmap`` turns their convolutions into grouped ones, which train slowly.
"""

from doorward.papers.cluster_impurity.estimate import Estimate, dry_run
from doorward.papers.cluster_impurity.plan import Case, Plan, Wishes, check, make_plan, only
from doorward.papers.cluster_impurity.stages import reproduce
from doorward.papers.cluster_impurity.trainers import FAITHFUL, FAST, TRAINERS
from doorward.papers.cluster_impurity.write import write_results

__all__ = [
    "FAITHFUL",
    "FAST",
    "TRAINERS",
    "Case",
    "Estimate",
    "Plan",
    "Wishes",
    "check",
    "dry_run",
    "make_plan",
    "only",
    "reproduce",
    "write_results",
]
