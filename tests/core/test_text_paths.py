"""Every public door takes a path as text, relative ones too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import doorward as dw
from doorward.attacks.files import load_attack, load_truth, save_attack
from doorward.attacks.job import AttackRequest, attack_to_folder
from doorward.certification.job import certify_to_folder
from doorward.certification.request import CertifyRequest
from doorward.cleansers.job import CleanseRequest, cleanse_to_folder
from doorward.core.runs import Run
from doorward.inversion.job import InvertRequest, invert_to_folder
from doorward.models.files import load_classifier, save_classifier
from doorward.models.train.job import TrainRequest, train_to_folder
from doorward.repairs.job import RepairRequest, repair_to_folder


def test_paths_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("set", "net"):
        Path(folder).mkdir()
    digits = dw.load_images("mnist-5k")
    dw.ImageSet(digits.pixels[:600], digits.labels[:600], digits.classes, "few").save("set")
    assert dw.ImageSet.load("set").hash == dw.load_images("set").hash

    attack_to_folder(AttackRequest(source="set", rate=0.05, seed=1), "poisoned")
    save_attack(load_attack("poisoned/attack"), "again")
    assert load_truth("poisoned/truth.parquet").poisoned.sum() == 30

    train_to_folder(TrainRequest(source="poisoned", net="two-layer", training={"epochs": 1}), "model")
    save_classifier(load_classifier("model"), "net")
    assert dw.load_model("net").classes == digits.classes
    dw.train(digits.subset(np.arange(100)), "two-layer", checkpoint="state.safetensors")

    cleanse_to_folder(CleanseRequest(source="poisoned", model="model", methods=("spectral",)), "run")
    assert Run.read("run", "cleanse")["verb"] == "cleanse"
    dw.cleanse(dw.load_images("set"), load_classifier("net"), ["spectral"], folder=".")
    dw.score("run", "poisoned/truth.parquet", test=dw.load_images("set"), models=[("net", "net")])
    dw.report("run", "page.html")

    invert_to_folder(InvertRequest(model="model", methods=("margin",)), "inverted")
    repair_to_folder(RepairRequest(model="model", source="set", methods=("refresh",), controls=False), "repaired")
    assert load_classifier("repaired").arch == "two-layer"


def test_certificates_and_triggers_by_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = CertifyRequest(
        source="mnist-5k", classes=("1", "7"), train=20, test=20, learner="nearest-centroid", trials=64
    )
    certify_to_folder(asked, "proof")
    assert dw.verify("proof/certificate.json").valid
    dw.Certificate.load("proof/certificate.json").save("copy.json")
    assert dw.verify("copy.json").images == 20
    trigger = dw.Trigger(torch.ones(1, 2, 2), torch.ones(1, 2, 2))
    trigger.save("trigger.safetensors")
    assert torch.equal(dw.Trigger.load("trigger.safetensors").pattern, trigger.pattern) and Path("trigger.png").exists()
