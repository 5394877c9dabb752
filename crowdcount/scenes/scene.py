"""Rendered crowd scenes with exact head points: what ``crowdcount demo`` and the tests count.

A scene is a small world in metres: a camera above flat ground, a backdrop, people, and things that
are no people. All that stands on the ground is painted from the farthest to the nearest, so near
ones hide far ones, and each head leaves its number beside its colour. The numbers that remain say
how much of every head can be seen.

Should a head be counted that nobody can see? No, and neither should a body without a head confuse
the count: a person of whose head less than ``VISIBLE_PART`` shows is taken out of the scene. So
every head in the picture is annotated, at its centre, and every annotated head shows.
"""

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import UInt16
from pydantic import ConfigDict

from crowdcount.core.progress import Track, untracked
from crowdcount.core.sample import Sample
from crowdcount.errors import ConfigError, UsageError
from crowdcount.files import atomic_folder
from crowdcount.scenes.people import HEAD_RADIUS, HEAD_UP, THINGS, Canvas, Pen, Person, Thing
from crowdcount.scenes.scenery import (
    BACKDROPS,
    FABRICS,
    Camera,
    Light,
    Pixels,
    Place,
    add_haze,
    cast_shadows,
    paint_sky,
    photograph,
    pick,
    varied,
)

VISIBLE_PART = 0.25
"""The least part of a head's area that must show for its person to be in the scene."""

PERSONAL_SPACE = 0.62
"""Metres between the places on which people can stand."""


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """What rendered scenes are like."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    width: int = 512
    """Pixels."""

    height: int = 384
    """Pixels."""

    max_heads: int = 150
    """The most heads in a scene. Fewer where no more fit on the ground or can be seen."""

    empty_fraction: float = 0.1
    """How often a scene has nobody in it, from 0 to 1."""

    smallest_head: float = 3.0
    """Radius in pixels of an adult's head at the farthest place where people stand, at least."""

    largest_head: float = 14.0
    """Radius in pixels of an adult's head at the nearest place where people stand, at most."""

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if getattr(self, name) < 32:
                raise ConfigError(f"scenes.{name} must be at least 32, got {getattr(self, name)}")
        # Heads are numbered in 16 bits.
        if not 0 <= self.max_heads < 2**16:
            raise ConfigError(f"scenes.max_heads must be from 0 to 65535, got {self.max_heads}")
        if not 0 <= self.empty_fraction <= 1:
            raise ConfigError(
                f"scenes.empty_fraction must be from 0 to 1, got {self.empty_fraction}"
            )
        if not self.smallest_head >= 1:
            raise ConfigError(f"scenes.smallest_head must be at least 1, got {self.smallest_head}")
        if not 1.5 * self.smallest_head <= self.largest_head < math.inf:
            raise ConfigError(
                "scenes.largest_head must be at least 1.5 times scenes.smallest_head, "
                f"got {self.largest_head} and {self.smallest_head}"
            )


def write_scenes(
    folder: Path,
    *,
    images: int,
    seed: int,
    settings: SceneSettings,
    track: Track = untracked,
) -> None:
    """Render scenes into a new folder of JPEG files with one ``points.csv``, whole or not at all.

    The table has the header ``image,x,y`` and a row for each head, in pixels with two decimals; an
    empty scene has the row ``image,,``. The scene ``scene_0007.jpg`` depends on ``seed``, on its
    number and on ``settings`` alone, not on how many are made. The same call gives the same bytes.

    Args:
        folder: Where to write; it must not exist or be empty.
        images: How many scenes, at least 1.
        seed: At least 0.
        settings: What the scenes are like.
        track: How the work is reported.

    Raises:
        UsageError: If ``folder`` has content already.
        ValueError: If ``images`` or ``seed`` is too small.
    """

    def render(number: int, rng: np.random.Generator) -> Sample:
        return render_scene(rng, settings, name=f"scene_{number:04d}.jpg")

    write_rendered(folder, render, images=images, seed=seed, track=track, label="render scenes")


def write_rendered(
    folder: Path,
    render: Callable[[int, np.random.Generator], Sample],
    *,
    images: int,
    seed: int,
    track: Track,
    label: str,
) -> None:
    """Write what ``render`` makes of the numbers from 1 and a generator of each.

    The layout and the errors are those of :func:`write_scenes`.
    """
    if images < 1 or seed < 0:
        raise ValueError(f"needs images >= 1 and seed >= 0, got {images} and {seed}")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(
            f"{folder} is not empty, and rendered scenes need a folder of their own",
            next_step="give a folder that does not exist",
        )
    rows: list[tuple[str, str, str]] = [("image", "x", "y")]
    with atomic_folder(folder) as unfinished:
        for number in track(range(1, images + 1), label=label):
            rng = np.random.default_rng([seed, number])
            sample = render(number, rng)
            (unfinished / sample.name).write_bytes(
                _jpeg(sample.image, quality=int(rng.integers(60, 96)))
            )
            places = [(f"{x:.2f}", f"{y:.2f}") for x, y in sample.points] or [("", "")]
            rows.extend((sample.name, x, y) for x, y in places)
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(rows)
        (unfinished / "points.csv").write_bytes(table.getvalue().encode("utf-8"))


def render_scene(rng: np.random.Generator, settings: SceneSettings, *, name: str) -> Sample:
    """Render one scene. All that is random in it comes from ``rng``.

    Args:
        rng: Where the randomness comes from.
        settings: What the scene is like.
        name: What to call it.

    Returns:
        The picture before JPEG and the centres of all its heads, rounded to 0.01 pixels.
    """
    return render_with_owners(rng, settings, name=name)[0]


def render_with_owners(
    rng: np.random.Generator, settings: SceneSettings, *, name: str
) -> tuple[Sample, UInt16[np.ndarray, "height width"]]:
    """Render one scene, and say whose head each pixel shows.

    Returns:
        The scene, and for each pixel ``i + 1`` where the head at ``points[i]`` shows, else 0 (read
        at the pixel's upper left quarter, as a pixel on an outline shows more than one thing).
    """
    camera = _camera(rng, settings)
    light = Light.drawn(rng)
    backdrop = np.empty((settings.height, settings.width, 3), np.uint8)
    paint_sky(backdrop, camera, rng)
    half_width = BACKDROPS[pick(rng, list(BACKDROPS))](backdrop, camera, rng)
    people = _crowd(rng, settings, camera, half_width)
    things = _things(rng, camera, half_width)

    canvas = _painted(backdrop, camera, light, people, things)
    visible = _visible(canvas, camera, people)
    if len(visible) < len(people):
        # Whoever leaves can only uncover others, so one repetition is enough.
        people = visible
        canvas = _painted(backdrop, camera, light, people, things)
    sample = Sample(
        name=name,
        image=photograph(canvas.reduced(), light, rng),
        points=np.array([person.head_in(camera) for person in people]).reshape(-1, 2).round(2),
    )
    return sample, canvas.owners()


def _camera(rng: np.random.Generator, settings: SceneSettings) -> Camera:
    """A camera under which heads have the sizes of ``settings`` and fill most rows."""
    near_head = rng.uniform(0.7, 1.0) * settings.largest_head
    near_head = max(near_head, 1.5 * settings.smallest_head)
    far_head = max(rng.uniform(0.2, 0.5) * near_head, settings.smallest_head)
    near, far = near_head / HEAD_RADIUS, far_head / HEAD_RADIUS
    # The rows of the nearest and of the farthest heads decide how high camera and horizon are.
    low = rng.uniform(0.85, 1.0) * settings.height
    high = rng.uniform(0.15, 0.45) * settings.height
    above_heads = (low - high) / (near - far)
    focal = rng.uniform(0.8, 1.2) * settings.width
    return Camera(
        width=settings.width,
        height=settings.height,
        horizon=high - above_heads * far,
        up=above_heads + HEAD_UP,
        focal=focal,
        nearest=focal / near,
        farthest=focal / far,
    )


def _crowd(
    rng: np.random.Generator, settings: SceneSettings, camera: Camera, half_width: float
) -> list[Person]:
    """People on a jittered grid of the ground, thicker around a few places; farthest first."""
    if settings.max_heads == 0 or rng.random() < settings.empty_fraction:
        return []
    # The square makes most scenes sparse and some dense; the mean is a third of the most.
    wanted = 1 + int((settings.max_heads - 1) * rng.random() ** 2 + 0.5)
    depths = np.arange(camera.nearest, camera.farthest, PERSONAL_SPACE)
    reach = min(half_width, camera.half_view(camera.farthest))
    across = np.arange(-reach, reach, PERSONAL_SPACE)
    x, depth = (axis.ravel() for axis in np.meshgrid(across, depths))
    x = x + rng.uniform(-0.2, 0.2, x.size)
    depth = depth + rng.uniform(-0.2, 0.2, x.size).clip(min=-0.1)
    crowding = np.full(x.size, rng.uniform(0.05, 0.6))
    for _ in range(int(rng.integers(1, 4))):
        centre, away = rng.uniform(-reach, reach), rng.uniform(camera.nearest, camera.farthest)
        spread = rng.uniform(1, 5)
        crowding += np.exp(-((x - centre) ** 2 + (depth - away) ** 2) / (2 * spread**2))
    crowding /= depth ** rng.uniform(0, 1.5)
    crowding[np.abs(x) > camera.width / 2 * depth / camera.focal] = 0
    wanted = min(wanted, int((crowding > 0).sum()))
    if wanted == 0:
        return []
    chosen = rng.choice(x.size, wanted, replace=False, p=crowding / crowding.sum())
    flow = rng.uniform(0, 2 * math.pi)
    people = [
        Person.drawn(
            rng,
            x=float(x[place]),
            depth=float(depth[place]),
            turn=flow + rng.normal(0, 0.5) + math.pi * (rng.random() < 0.35),
        )
        for place in chosen[np.argsort(-depth[chosen])]
    ]
    return [person for person in people if _inside(person.head_in(camera), camera)]


def _inside(place: Place, camera: Camera) -> bool:
    """Whether a pixel position stays inside the image when it is rounded to 0.01."""
    return 0 <= place[0] <= camera.width - 0.01 and 0 <= place[1] <= camera.height - 0.01


def _things(rng: np.random.Generator, camera: Camera, half_width: float) -> list[Thing]:
    """A few things anywhere on the ground."""
    things = []
    kinds = [pick(rng, list(THINGS)) for _ in range(int(rng.integers(1, 3)))]
    for _ in range(int(rng.integers(0, 9))):
        depth = rng.uniform(1.2 * camera.nearest, 1.4 * camera.farthest)
        reach = min(half_width, camera.half_view(depth))
        things.append(
            Thing(
                kind=pick(rng, kinds),
                x=rng.uniform(-reach, reach),
                depth=depth,
                colour=varied(rng, pick(rng, FABRICS)),
                size=rng.uniform(0.8, 1.2),
            )
        )
    return things


def _painted(
    backdrop: Pixels, camera: Camera, light: Light, people: list[Person], things: list[Thing]
) -> Canvas:
    """The backdrop with all that stands before it; ``people[i]`` leaves the number ``i + 1``."""
    standing: list[Person | Thing] = [*people, *things]
    ground = backdrop.copy()
    cast_shadows(ground, camera, light, [(one.x, one.depth, *one.outline) for one in standing])
    add_haze(ground, camera, light)
    canvas = Canvas(ground)
    number = 0
    # The farthest first; people come in this order already, which keeps their numbers in step.
    for one in sorted(standing, key=lambda one: -one.depth):
        pen = Pen(canvas, camera, light, x=one.x, depth=one.depth, size=one.size)
        if isinstance(one, Person):
            number += 1
            one.paint(pen, number)
        else:
            one.paint(pen)
    return canvas


def _visible(canvas: Canvas, camera: Camera, people: list[Person]) -> list[Person]:
    """Those of whose heads enough shows."""
    shown = np.bincount(canvas.owners().ravel(), minlength=len(people) + 1)[1:]
    return [
        person
        for person, pixels in zip(people, shown.tolist(), strict=True)
        if pixels >= VISIBLE_PART * person.head_area(camera)
    ]


def _jpeg(image: Pixels, *, quality: int) -> bytes:
    """The image as a JPEG file."""
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(encoded)
