"""A model and pictures that were not made for each other, opened together: what every verb's request has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.settings import build_settings
from doorward.data.reading import Reading, Resize
from doorward.data.sources import load_as, load_for_test
from doorward.data.summary import conversions
from doorward.models.description import check_images, read_description
from doorward.models.open import hugging_face
from doorward.models.open.conventions import check_conventions
from doorward.models.open.load import ModelOptions, check_path
from doorward.models.open.matching import decided, fit_images, fit_pictures, match_classes


class Opened(NamedTuple):
    """A classifier, images as it takes them, and in words what was understood, converted and doubted.

    ``own_labels``: the images' labels are their own, not the model's decisions.
    """

    classifier: Classifier
    images: ImageSet
    notes: tuple[str, ...]
    own_labels: bool


class Opening(ModelOptions):
    """A model on disk and how pictures are read for it."""

    split: Literal["train", "test"] | None = None
    resize: Resize = "crop"
    skip_bad: bool = False

    def read(self, source: str, split: Literal["train", "test"] | None = None, *, labels: bool = True) -> ImageSet:
        """Pictures in the size of ``size``, else in the one that the model's own configuration says, else their own.

        Args:
            split: which; None for the test images where the source has some, for a classifier has not seen them.
            labels: False where labels do not matter: pictures without class folders will do.
        """
        if self.model:
            check_path(Path(self.model), self.arch)
        values: dict[str, Any] = {"size": self.side, "resize": self.resize, "skip_bad": self.skip_bad}
        values |= {"split": split or "train", "any_labels": not labels}
        reading = build_settings(Reading, "images", values, options=True)
        return load_as(source, reading) if split else load_for_test(source, reading)

    def open_on_its_set(self, images: ImageSet) -> Opened:
        """For questions about these images: their classes are matched with the model's by name, or refused."""
        classifier = self._open(images, labelled=True)
        fitted, notes = fit_pictures(images, classifier.shape)
        fitted = match_classes(fitted, classifier)
        if not self.has_conventions:  # what Doorward wrote beside a net outweighs a guess
            notes += check_conventions(classifier, fitted, labelled=True, name=self.model)
        return Opened(classifier, fitted, (*conversions(images), *classifier.notes, *notes), True)

    def open_on_others(self, images: ImageSet, *, labelled: bool = True) -> Opened:
        """For questions about the model: foreign pictures are made to fit, their labels too.

        Args:
            labelled: False where the images' own labels are not to be used.
        """
        classifier = self._open(images, labelled=False)
        if classifier.classes_from == "numbers" and labelled and len(classifier.classes) == len(images.classes):
            classifier = replace(classifier, classes=images.classes, classes_from="the images, in their order")
        fitted, notes, matched = fit_images(images, classifier) if labelled else _unlabelled(images, classifier)
        if matched or not self.has_conventions:
            foreign = labelled and not matched  # what it decides about other things may tell little, and rightly so
            notes += check_conventions(classifier, fitted, labelled=matched, name=self.model, refuse=not foreign)
        return Opened(classifier, fitted, (*conversions(images), *classifier.notes, *notes), matched)

    def _open(self, images: ImageSet, *, labelled: bool) -> Classifier:
        """The classifier; where grey pictures do not go in, it may be that of a colour net."""
        try:
            return self.open(images, labelled=labelled)
        except DoorwardError:
            if images.shape[0] != 1:
                raise
            try:
                return self.open(images.coloured(), labelled=labelled)
            except DoorwardError:
                pass
            raise

    @property
    def side(self) -> int | None:
        """The side of the square images that are asked for, or that the model's own configuration speaks of."""
        if self.size is not None or not self.model:
            return self.size
        path, arch = Path(self.model), self.arch or ""
        folder = path if hugging_face.is_folder(path) else Path(arch.removeprefix("hf:"))
        shape: Any = self.shape
        if shape is None and (path / "classifier.json").is_file():
            about = read_description(path)
            check_images(path, about)
            shape = about.shape
        elif shape is None and (folder / "config.json").is_file() and (folder == path or arch.startswith("hf:")):
            shape = hugging_face.of_folder(folder, f"hf:{folder}").shape
        known = isinstance(shape, list | tuple) and len(shape) == 3 and shape[1] == shape[2]
        return int(shape[1]) if known and isinstance(shape[1], int) else None


def _unlabelled(images: ImageSet, classifier: Classifier) -> tuple[ImageSet, tuple[str, ...], bool]:
    """The images as the model takes them, under its own decisions."""
    fitted, notes = fit_pictures(images, classifier.shape)
    return decided(fitted, classifier), notes, False
