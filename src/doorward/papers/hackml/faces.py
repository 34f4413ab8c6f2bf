"""Faces: the ORL database from a file of the user, and drawn ones for use without it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet

HEIGHT, WIDTH = 55, 47  # of the DeepID nets of CSAW HackML
ORL_CREDIT = "The Database of Faces (ORL), AT&T Laboratories Cambridge; Samaria and Harter 1994"
PEOPLE, PICTURES = 40, 10
TRAINING_PICTURES = 7  # of ten, as the split 7/3 has it
_ORL_SHAPE = (PEOPLE * PICTURES, 112, 92)
_CROP = (4, 14, 88, 112)  # left, top, right, bottom: hair and shoulders off, the proportions of 55 x 47


def load_orl(path: Path, colour: bool = True) -> ImageSet:
    """The 400 ORL faces, cropped to the face and resized to 55 x 47; class k is person k.

    Args:
        path: an ``.npz`` file with ``images`` uint8 [400, 112, 92] and ``labels`` [400]; read without pickle.
        colour: the grey faces repeated over three channels, as a colour net wants them.

    Raises:
        DoorwardError: one line about a file that is absent, broken, or holds something else.
    """
    pixels, labels = _read_orl(path)
    grey = np.stack([_fitted(picture) for picture in pixels])[..., None]
    names = tuple(f"person {k}" for k in range(PEOPLE))
    provenance: dict[str, object] = {"source": ORL_CREDIT, "converted": "grey to RGB" if colour else "none"}
    return ImageSet(np.repeat(grey, 3, axis=3) if colour else grey, labels, names, "orl", provenance)


def _read_orl(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            pixels, labels = np.asarray(file["images"]), np.asarray(file["labels"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DoorwardError(f"{path}: {line}; expected an .npz file with images and labels of the ORL faces") from None
    if pixels.shape != _ORL_SHAPE or pixels.dtype != np.uint8:
        expected = f"uint8 {list(_ORL_SHAPE)}"
        raise DoorwardError(f"{path}: images {pixels.dtype} {list(pixels.shape)}; expected {expected}, the ORL faces")
    if labels.shape != (len(pixels),) or not np.array_equal(np.bincount(labels), [PICTURES] * PEOPLE):
        raise DoorwardError(f"{path}: labels that are not {PICTURES} pictures of each of {PEOPLE} people")
    return pixels, labels.astype(np.int64)


def _fitted(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    face = Image.fromarray(picture).crop(_CROP).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    return np.asarray(face, np.uint8)


def split_faces(faces: ImageSet, seed: int = 0, training: int = TRAINING_PICTURES) -> tuple[ImageSet, ImageSet]:
    """Training and test faces: ``training`` pictures of every person, drawn by the seed, and the others."""
    smallest = int(faces.counts().min())
    if not 0 < training < smallest:
        told = f"{training} training pictures, {smallest} of the person with the fewest"
        raise DoorwardError(f"{faces.name}: {told}; expected at least one for training and one for the test")
    rng = np.random.default_rng(seed)
    first = np.zeros(len(faces), bool)
    for person in range(len(faces.classes)):
        first[rng.permutation(np.flatnonzero(faces.labels == person))[:training]] = True
    return faces.subset(first, f"{faces.name}-train"), faces.subset(~first, f"{faces.name}-test")


def draw_faces(people: int = PEOPLE, pictures: int = PICTURES, *, seed: int = 0, glasses: float = 0.15) -> ImageSet:
    """Synthetic faces, 55 x 47 RGB, for use without the ORL file: an average face with varied parts.

    A person is a set of shapes and colours (face, hair, brows, eyes, nose, mouth); a picture of it varies place, light
    and expression. A share of the people always wears glasses: natural accessories.

    Args:
        people, pictures: how many, and of each; at least two people.
        glasses: share of people who wear some.
    """
    if people < 2 or pictures < 1:
        raise DoorwardError(f"synthetic faces: {people} people, {pictures} pictures; expected at least 2 and 1")
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(people):
        person = _draw_person(rng, glasses)
        drawn += [_picture(person, rng) for _ in range(pictures)]
    labels = np.repeat(np.arange(people, dtype=np.int64), pictures)
    names = tuple(f"person {k}" for k in range(people))
    return ImageSet(np.stack(drawn), labels, names, "synthetic-faces", {"source": "drawn", "seed": seed})


Person = dict[str, tuple[float, ...]]
Colour = tuple[int, int, int]


def _draw_person(rng: np.random.Generator, glasses: float) -> Person:
    """Shapes in pixels of 55 x 47 and colours 0 .. 255."""

    def between(*ranges: tuple[float, float]) -> tuple[float, ...]:
        return tuple(float(rng.uniform(low, high)) for low, high in ranges)

    tone = float(rng.uniform(0.45, 1.0))
    hair = float(rng.uniform(0.1, 0.9))
    return {
        "skin": (232 * tone, 190 * tone + 6, 165 * tone + 4),
        "hair": (200 * hair, 150 * hair, 90 * hair + 10),
        "back": between((20, 200), (20, 200), (20, 200)),
        "face": between((16, 21), (21, 26)),  # half width, half height
        "fringe": between((8, 17)),  # row where the hair ends
        "brow": between((13, 17), (1, 3), (-1.5, 1.5)),  # row, thickness, slant
        "eye": between((19, 23), (8, 11), (2, 4), (1, 2.5)),  # row, distance from the middle, half width, half height
        "iris": between((20, 120), (40, 140), (40, 160)),
        "nose": between((29, 34), (2, 5)),  # row of the tip, half width
        "mouth": between((39, 44), (5, 10), (1, 3)),
        "lips": between((140, 220), (50, 110), (60, 120)),
        "glasses": (1.0 if rng.random() < glasses else 0.0,),
    }


def _picture(person: Person, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One picture of a person: drawn four times as large and made smaller, so that edges are soft."""
    from PIL import Image, ImageDraw

    scale = 4
    shift = rng.normal(0, 0.8, 2)
    smile, light, side = float(rng.uniform(-1, 1.5)), float(rng.uniform(0.8, 1.15)), float(rng.uniform(-0.2, 0.2))
    canvas = Image.new("RGB", (WIDTH * scale, HEIGHT * scale), _colour(person["back"]))
    pen = ImageDraw.Draw(canvas)

    def box(row: float, column: float, half_height: float, half_width: float) -> tuple[float, float, float, float]:
        y, x = (row + shift[0]) * scale, (column + shift[1]) * scale
        return x - half_width * scale, y - half_height * scale, x + half_width * scale, y + half_height * scale

    middle, (half_width, half_height), (fringe,) = WIDTH / 2, person["face"], person["fringe"]
    pen.ellipse(box(27, middle, half_height + 3, half_width + 2.5), fill=_colour(person["hair"]))
    pen.ellipse(box(29, middle, half_height, half_width), fill=_colour(person["skin"]))
    pen.chord(box(fringe, middle, fringe - 2, half_width), 180, 360, fill=_colour(person["hair"]))
    row, distance, eye_width, eye_height = person["eye"]
    brow_row, brow_height, slant = person["brow"]
    for sign in (-1, 1):
        column = middle + sign * distance
        pen.ellipse(box(row, column, eye_height, eye_width), fill=(240, 240, 240))
        pen.ellipse(box(row, column, eye_height, eye_height), fill=_colour(person["iris"]))
        left, top, right, bottom = box(brow_row, column, brow_height / 2, eye_width + 1.5)
        tilt = sign * slant * scale
        corners = [(left, top - tilt), (right, top + tilt), (right, bottom + tilt), (left, bottom - tilt)]
        pen.polygon(corners, fill=_colour(person["hair"]))
        if person["glasses"][0]:
            pen.ellipse(box(row, column, 4.5, 5.5), outline=(25, 25, 25), width=scale)
    tip, nose_width = person["nose"]
    dark = _colour(tuple(0.8 * v for v in person["skin"]))
    pen.polygon(_triangle(box(tip - 4, middle, 4, nose_width)), fill=dark)
    mouth_row, mouth_width, mouth_height = person["mouth"]
    pen.ellipse(
        box(mouth_row, middle, max(0.7, mouth_height + smile), mouth_width + smile), fill=_colour(person["lips"])
    )
    small = canvas.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    shade = light + side * np.linspace(-1, 1, WIDTH)[None, :, None]
    noisy = np.asarray(small, np.float64) * shade + rng.normal(0, 3, (HEIGHT, WIDTH, 1))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _triangle(box: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    left, top, right, bottom = box
    return [((left + right) / 2, top), (right, bottom), (left, bottom)]


def _colour(values: tuple[float, ...]) -> Colour:
    return cast(Colour, tuple(int(min(255, max(0, v))) for v in values))
