"""Rendered pictures without people that a counter could take for some, and plain ones.

Each kind is a function of a generator and a size. Those in :data:`UNSEEN` are kept from training:
they measure whether a model learned what no person is, or only these pictures.
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
"""Least and most pixels of a side of a drawn negative, the latter not included."""

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
"""Kinds to measure with alone: nothing that trains may draw them."""

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
"""Kinds that may be trained on."""

NEGATIVES: Mapping[str, Negative] = MappingProxyType({**UNSEEN, **FOR_TRAINING})
"""All kinds."""


def render_negative(kind: str, rng: np.random.Generator) -> Pixels:
    """A picture of a kind, of a size that a photograph could have.

    Args:
        kind: A key of :data:`NEGATIVES`.
        rng: Where the randomness comes from.
    """
    height, width = (32 * int(side) for side in rng.integers(SIDES[0] // 32, SIDES[1] // 32, 2))
    return NEGATIVES[kind](rng, (height, width))


def write_negatives(folder: Path, *, images: int, seed: int, track: Track = untracked) -> None:
    """Render a training set of empty scenes, laid out as :func:`write_scenes` does it.

    The kinds of :data:`FOR_TRAINING` take turns. A picture depends on ``seed`` and its number
    alone.

    Raises:
        UsageError: If ``folder`` has content already.
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
