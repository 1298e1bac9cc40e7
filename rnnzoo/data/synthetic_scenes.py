"""Drawn scenes of two coloured shapes, and several ways to say what stands where."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image

from rnnzoo.data.synthetic import Sample, SyntheticTask

SHAPES = ("circle", "square", "triangle")
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 230), "yellow": (240, 220, 60)}
RELATIONS = {"left of": "right of", "above": "below"}  # each with what it is from the other side
BACKGROUND, NOISE = 128, 12  # grey, and the deviation of what is added to each pixel
SIZE = 32  # pixels on a side
RADIUS = (4.0, 5.5)  # smallest and largest shape, from its middle


class Thing(NamedTuple):
    """A shape of a scene."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"a {self.colour} {self.shape}"


class Scenes(SyntheticTask):
    """Two shapes on a square of noise, one left of the other or above it, as a PNG image.

    Every scene has the same four captions but for the names, all of them right:
    A left of B; B right of A; there is A left of B; A stands left of B. A caption names what stands left, or above,
    first or last, as it is written. So a model that sees the scene can always write one of the references.
    """

    columns = ("image", "captions")
    default_sizes: ClassVar[dict[str, int]] = {"train": 4000, "validation": 400, "test": 801}

    def draw(self, random: np.random.Generator) -> Sample:
        """Draw two different things, a relation and places, then the picture."""
        first, second = draw_things(random)
        relation = list(RELATIONS)[random.integers(len(RELATIONS))]
        radii = random.uniform(*RADIUS, size=2)
        half = SIZE / 2  # each thing keeps to its own
        along = [
            random.uniform(radii[0] + 1, half - radii[0] - 0.5),
            random.uniform(half + radii[1], SIZE - radii[1] - 1),
        ]
        # Nearer on the other axis than on this: no scene is left of and above in equal measure.
        middle = random.uniform(9, SIZE - 9)
        across = [float(np.clip(middle + random.uniform(-2, 2), radius + 1, SIZE - radius - 1)) for radius in radii]
        places = zip(along, across, strict=True) if relation == "left of" else zip(across, along, strict=True)
        pixels = BACKGROUND + NOISE * random.normal(size=(SIZE, SIZE, 3))
        for thing, radius, (x, y) in zip((first, second), radii, places, strict=True):
            pixels[mask(thing.shape, x, y, radius)] += np.array(COLOURS[thing.colour]) - BACKGROUND
        return {"image": png(pixels), "captions": captions(first, relation, second)}

    def best(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return perfect scores: what can be seen decides every word, and any of the references will do."""
        return {"exact_match": 100.0, "bleu4": 100.0}


def draw_things(random: np.random.Generator) -> tuple[Thing, Thing]:
    """Return two things that differ in colour or in shape."""
    count = len(COLOURS) * len(SHAPES)
    place = int(random.integers(count))
    other = (place + int(random.integers(1, count))) % count
    first, second = (Thing(list(COLOURS)[each // len(SHAPES)], SHAPES[each % len(SHAPES)]) for each in (place, other))
    return first, second


def captions(first: Thing, relation: str, second: Thing) -> list[str]:
    """Return the four ways to say where two things stand.

    >>> captions(Thing("red", "circle"), "above", Thing("blue", "square"))[1]
    'a blue square below a red circle'
    """
    return [
        f"{first} {relation} {second}",
        f"{second} {RELATIONS[relation]} {first}",
        f"there is {first} {relation} {second}",
        f"{first} stands {relation} {second}",
    ]


def mask(shape: str, x: float, y: float, radius: float) -> np.ndarray:
    """Return which pixels [Y, X] belong to a shape around (x, y)."""
    right, down = np.arange(SIZE) - x, (np.arange(SIZE) - y)[:, None]  # [X], [Y, 1]
    if shape == "circle":
        return right**2 + down**2 <= radius**2
    if shape == "square":
        return np.maximum(abs(right), abs(down)) <= 0.85 * radius
    return (down <= 0.8 * radius) & (down >= -radius) & (abs(right) <= 0.55 * (down + radius))


def png(pixels: np.ndarray) -> bytes:
    """Return pixels [Y, X, 3] as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)).save(file, "PNG", compress_level=1)
    return file.getvalue()
