"""Drawn scenes of two coloured shapes with a sentence about them: as images, or as features of detected regions."""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image

from rnnzoo.data.synthetic import PROCESS_SEED, Sample, SyntheticTask
from rnnzoo.processors.images import read_image

SHAPES = ("circle", "square", "triangle")
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 230), "yellow": (240, 220, 60)}
RELATIONS = ("left of", "above")
BACKGROUND = 128  # grey
NOISE = 20  # largest amount that is added to a channel of a pixel; colours are further apart than twice that
SIZE = 32  # pixels on a side
RADIUS = (4.5, 6.0)  # smallest and largest shape, from its centre, in pixels
GAP = 1  # pixels between a shape and the border of its half of the image


class Thing(NamedTuple):
    """A shape of a scene."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"a {self.colour} {self.shape}"


class Scene(NamedTuple):
    """Two different things, the first of which is left of the second or above it."""

    things: tuple[Thing, Thing]
    relation: str
    centres: tuple[tuple[float, float], tuple[float, float]]  # (x, y) in pixels
    radii: tuple[float, float]

    @property
    def caption(self) -> str:
        """The one caption, such as ``a red circle left of a blue square``."""
        return f"{self.things[0]} {self.relation} {self.things[1]}"

    def masks(self) -> list[np.ndarray]:
        """Return the pixels [Y, X] of both things."""
        parts = zip(self.things, self.centres, self.radii, strict=True)
        return [mask(thing.shape, x, y, radius) for thing, (x, y), radius in parts]

    def grounding(self, values: Sequence[list[float]]) -> list[list[float]]:
        """Return `values` of both things at the words of the caption that name colour and shape, [] at the others."""
        first, second = values
        return [[], first, first, *([[]] * len(self.relation.split())), [], second, second]


class SceneTask(SyntheticTask):
    """Two shapes with a relation. The caption is a function of the input, so that all scores can be perfect.

    What is left, or above, comes first: *a red circle left of a blue square*, *a green square above a red square*.
    Along the relation the centres are at least 10 pixels apart, and across it 4 at most.

    ``grounding`` says for each word of the caption what it names: see `rnnzoo.metrics.pointing.Pointing`.
    """

    def draw(self, random: np.random.Generator) -> Sample:
        """Draw two different things, a relation, sizes and positions, then what a model is given of them."""
        return self.sample_of(draw_scene(random), random)

    @abstractmethod
    def sample_of(self, scene: Scene, random: np.random.Generator) -> Sample:
        """Return what a model is given of a scene."""

    @abstractmethod
    def read(self, sample: Mapping[str, Any]) -> str:
        """Return the caption that follows from the input of a sample alone, by rules."""

    def best(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the share of captions that `read` gets right, in percent; if that is all, BLEU-4 is 100 too."""
        right = 100 * float(np.mean([self.read(sample) in sample["captions"] for sample in samples]))
        return {"exact_match": right, "bleu4": 100.0} if right == 100 else {"exact_match": right}


class Scenes(SceneTask):
    """Scenes as PNG images of 32 × 32 pixels, with noise on all pixels; `grounding` has bounding boxes."""

    columns = ("image", "captions", "grounding")
    default_sizes: ClassVar[dict[str, int]] = {"train": 4000, "validation": 400, "test": 801}

    def sample_of(self, scene: Scene, random: np.random.Generator) -> Sample:
        """Draw the picture."""
        pixels = BACKGROUND + random.uniform(-NOISE, NOISE, size=(SIZE, SIZE, 3))
        masks = scene.masks()
        for thing, pixels_of_thing in zip(scene.things, masks, strict=True):
            pixels[pixels_of_thing] += np.array(COLOURS[thing.colour]) - BACKGROUND
        return {
            "image": png(pixels),
            "captions": [scene.caption],
            "grounding": scene.grounding([box_of(pixels_of_thing) for pixels_of_thing in masks]),
        }

    def read(self, sample: Mapping[str, Any]) -> str:
        """Return the caption of an image: colours from pixels, the relation from the gap, shapes from their boxes."""
        pixels = np.asarray(read_image(sample["image"], "scene")).astype(int)  # [Y, X, 3]
        means = np.array([(BACKGROUND,) * 3, *COLOURS.values()])  # [1 + colours, 3]
        labels = abs(pixels[:, :, None] - means).max(-1).argmin(-1)  # [Y, X], 0 is background
        columns, rows = (np.nonzero((labels > 0).any(axis))[0] for axis in (0, 1))
        sideways = bool((np.diff(columns) > 1).any())  # an empty column between both things
        along = columns if sideways else rows
        border = along[np.diff(along).argmax()] + 1
        halves = np.split(labels, [border], axis=1 if sideways else 0)
        things = [Thing(list(COLOURS)[half.max() - 1], shape_of(half > 0)) for half in halves]
        return f"{things[0]} {RELATIONS[0] if sideways else RELATIONS[1]} {things[1]}"


class SceneRegions(SceneTask):
    """Scenes as a detector gives them: a set of regions [L, 28] in any order, for bottom-up attention.

    A region has 24 numbers of appearance and its box (left, top, right and bottom, from -1 to 1). There is one region
    for each of the two things, and one to four of the background, with boxes anywhere. The appearance of things of a
    colour and a shape is the sum of a vector of each, with noise; that of the background has its own vector.
    `grounding` has the index of the region.
    """

    columns = ("regions", "captions", "grounding")
    default_sizes: ClassVar[dict[str, int]] = {"train": 4000, "validation": 400, "test": 801}
    appearance_size = 24
    deviation = 0.15  # of the noise on each number of appearance
    backgrounds = (1, 4)  # fewest and most regions of the background

    def __init__(self, *, seed: int = 0, sizes: Mapping[str, int] | None = None) -> None:
        super().__init__(seed=seed, sizes=sizes)
        random = np.random.default_rng([PROCESS_SEED, 7])
        vectors = 0.5 * random.normal(size=(len(COLOURS) + len(SHAPES) + 1, self.appearance_size))
        colours, shapes, self.background = np.split(vectors, [len(COLOURS), len(COLOURS) + len(SHAPES)])
        self.things = [Thing(colour, shape) for colour in COLOURS for shape in SHAPES]
        self.appearances = (colours[:, None] + shapes).reshape(-1, self.appearance_size)  # [things, 24]

    def sample_of(self, scene: Scene, random: np.random.Generator) -> Sample:
        """Draw the regions of the background and the noise, and shuffle."""
        boxes = [box_of(pixels) for pixels in scene.masks()]
        means = [self.appearances[self.things.index(thing)] for thing in scene.things]
        for _ in range(random.integers(self.backgrounds[0], self.backgrounds[1] + 1)):
            size = random.uniform(0.2, 0.5, size=2)
            corner = random.uniform(0, 1 - size)
            boxes.append([*corner.tolist(), *(corner + size).tolist()])
            means.append(self.background[0])
        appearance = np.array(means) + self.deviation * random.normal(size=(len(means), self.appearance_size))
        order = random.permutation(len(boxes))
        regions = np.concatenate([appearance, 2 * np.array(boxes) - 1], axis=1)[order]  # [L, 28]
        indices = [[float(np.nonzero(order == thing)[0][0])] for thing in (0, 1)]
        return {
            "regions": regions.round(4).tolist(),
            "captions": [scene.caption],
            "grounding": scene.grounding(indices),
        }

    def read(self, sample: Mapping[str, Any]) -> str:
        """Return the caption of regions: what each is by the nearest appearance, and the relation from the boxes."""
        regions = np.asarray(sample["regions"])
        means = np.concatenate([self.appearances, self.background])  # [things + 1, 24]
        distances = np.linalg.norm(regions[:, None, : self.appearance_size] - means, axis=-1)  # [L, things + 1]
        kinds = distances.argmin(1)
        named = [(kind, region[-4:]) for kind, region in zip(kinds, regions, strict=True)]
        seen = [(self.things[kind], box) for kind, box in named if kind < len(self.things)]
        if len(seen) != 2:
            return ""
        (one, box), (other, other_box) = sorted(seen, key=lambda item: item[1].sum())
        across, down = other_box[:2] + other_box[2:] - box[:2] - box[2:]
        return f"{one} {RELATIONS[0] if across > down else RELATIONS[1]} {other}"


def draw_scene(random: np.random.Generator) -> Scene:
    """Return a scene: each thing in its own half of the image, at about the same height (or side) as the other."""
    things = draw_things(random)
    relation = RELATIONS[random.integers(len(RELATIONS))]
    radii = random.uniform(*RADIUS, size=2)
    half = SIZE / 2
    along = [
        float(random.uniform(radii[0], half - radii[0] - GAP)),
        float(random.uniform(half + radii[1] + GAP, SIZE - radii[1] - 1)),
    ]
    middle = random.uniform(RADIUS[1] + 2, SIZE - RADIUS[1] - 3)
    across = [float(middle + random.uniform(-2, 2)) for _ in radii]
    first, second = zip(along, across, strict=True) if relation == "left of" else zip(across, along, strict=True)
    return Scene(things, relation, (first, second), (float(radii[0]), float(radii[1])))


def draw_things(random: np.random.Generator) -> tuple[Thing, Thing]:
    """Return two things that differ in colour or in shape."""
    kinds = [Thing(colour, shape) for colour in COLOURS for shape in SHAPES]
    first, second = random.choice(len(kinds), size=2, replace=False)
    return kinds[first], kinds[second]


def mask(shape: str, x: float, y: float, radius: float) -> np.ndarray:
    """Return which pixels [Y, X] belong to a shape around (x, y)."""
    right, down = np.arange(SIZE) - x, (np.arange(SIZE) - y)[:, None]  # [X], [Y, 1]
    if shape == "circle":
        return right**2 + down**2 <= radius**2
    if shape == "square":
        return np.maximum(abs(right), abs(down)) <= 0.85 * radius
    return (down <= 0.8 * radius) & (down >= -radius) & (abs(right) <= 0.55 * (down + radius))


def shape_of(pixels: np.ndarray) -> str:
    """Return the shape whose pixels [Y, X] these are: a square fills its box, a triangle is wider at its bottom."""
    rows, columns = np.nonzero(pixels)
    box = pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    half = len(box) // 2
    if box.all():
        return "square"
    return "triangle" if box[-half:].sum() > 1.5 * box[:half].sum() else "circle"


def box_of(pixels: np.ndarray) -> list[float]:
    """Return the bounding box of pixels [Y, X]: left, top, right and bottom in shares of the sides."""
    rows, columns = np.nonzero(pixels)
    height, width = pixels.shape
    box = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
    return [float(value) for value in box]


def png(pixels: np.ndarray) -> bytes:
    """Return pixels [Y, X, 3] as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)).save(file, "PNG", compress_level=1)
    return file.getvalue()
