"""Rendered pictures without people that a counter might mistake for crowds, and plain ones.

Each kind is a function of a generator and a size. Kinds in :data:`UNSEEN` are kept out of training:
they measure whether a model learned to count no people, or only learned these pictures.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from benchmarks.negatives import abstract, heaps, nature, objects, walls, writing
from benchmarks.negatives.surfaces import Size
from crowdcount.core.image import Sample
from crowdcount.core.progress import Track, untracked
from crowdcount.scenes.scene import write_rendered
from crowdcount.scenes.scenery import Pixels

Negative: TypeAlias = Callable[[np.random.Generator, Size], Pixels]

SIDES = (480, 1056)
"""Smallest side of a picture in pixels, and the limit below which its sides stay."""

UNSEEN: Mapping[str, Negative] = MappingProxyType(
    {
        "brick": walls.brick,
        "caps": heaps.caps,
        "keyboard": objects.keyboard,
        "text": writing.text,
        "water": nature.water,
        "white": abstract.white,
        "white noise": abstract.white_noise,
    }
)
"""Kinds for measuring only; training must not draw them."""

FOR_TRAINING: Mapping[str, Negative] = MappingProxyType(
    {
        "beans": heaps.beans,
        "black": abstract.black,
        "blue noise": abstract.blue_noise,
        "bokeh": objects.bokeh,
        "buttons": heaps.buttons,
        "camouflage": abstract.camouflage,
        "cars": objects.cars,
        "checkerboard": abstract.checkerboard,
        "concrete": walls.concrete,
        "empty scene": objects.empty_scene,
        "facade": objects.facade,
        "fence": objects.fence,
        "flowers": nature.flowers,
        "foliage": nature.foliage,
        "fruit": heaps.fruit,
        "gradient": abstract.gradient,
        "grass": nature.grass,
        "handwriting": writing.handwriting,
        "logs": heaps.logs,
        "panel": objects.panel,
        "pebbles": walls.pebbles,
        "pink noise": abstract.pink_noise,
        "plain colour": abstract.plain_colour,
        "plaster": walls.plaster,
        "posters": writing.posters,
        "roof": walls.roof,
        "seats": objects.seats,
        "sky": nature.sky,
        "speckle": abstract.speckle,
        "stars": nature.stars,
        "stone wall": walls.stone_wall,
        "stripes": abstract.stripes,
        "tiles": walls.tiles,
        "timetable": writing.timetable,
        "weave": walls.weave,
        "wood": walls.wood,
    }
)
"""Kinds for training."""

NEGATIVES: Mapping[str, Negative] = MappingProxyType({**UNSEEN, **FOR_TRAINING})
"""All kinds."""


def render_negative(kind: str, rng: np.random.Generator) -> Pixels:
    """Render a picture of a kind, with the size of a photograph.

    Args:
        kind: A key of :data:`NEGATIVES`.
        rng: Random generator.
    """
    height, width = (32 * int(side) for side in rng.integers(SIDES[0] // 32, SIDES[1] // 32, 2))
    return NEGATIVES[kind](rng, (height, width))


def write_negatives(folder: Path, *, images: int, seed: int, track: Track = untracked) -> None:
    """Render a training set of pictures without people, in the layout of ``write_scenes``.

    The kinds of :data:`FOR_TRAINING` alternate. A picture depends on ``seed`` and its number only.

    Raises:
        UsageError: If ``folder`` is not empty.
        ValueError: If ``images`` or ``seed`` is too small.
    """
    kinds = list(FOR_TRAINING)

    def render(number: int, rng: np.random.Generator) -> Sample:
        kind = kinds[(number - 1) % len(kinds)]
        return Sample(
            name=f"negative_{number:04d}_{kind.replace(' ', '_')}.jpg",
            image=render_negative(kind, rng),
            points=np.empty((0, 2)),
        )

    write_rendered(folder, render, images=images, seed=seed, track=track, label="render negatives")
