"""Rendered crowds with exact head points, for ``crowdcount demo`` and the tests.

A scene is a small world in metres: a camera above flat ground, a backdrop, people and objects.
They are painted from the farthest to the nearest, and each head writes its number beside its
colour. The numbers that remain show how much of each head is visible. A person whose head is
visible by less than ``VISIBLE_PART`` is removed, so all visible heads are annotated and all
annotated heads are visible.
"""

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt16

from crowdcount.core.image import Sample
from crowdcount.core.progress import Track, untracked
from crowdcount.errors import UsageError
from crowdcount.files import atomic_folder
from crowdcount.opencv import cv2
from crowdcount.scenes import scenery
from crowdcount.scenes.people import HEAD_RADIUS, HEAD_UP, OBJECTS, Canvas, Object, Pen, Person
from crowdcount.scenes.scenery import BACKDROPS, FABRICS, Camera, Light, Pixels, pick, varied

VISIBLE_PART = 0.25
"""Smallest visible part of a head's area with which a person stays in the scene."""

PERSONAL_SPACE = 0.62
"""Metres between the places where people can stand."""


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """Size and crowd of rendered scenes."""

    width: int = 512
    """Pixels."""

    height: int = 384
    """Pixels."""

    max_heads: int = 150
    """Most heads in a scene; fewer where no more fit on the ground or are visible."""

    empty_fraction: float = 0.1
    """Probability that a scene has no people."""

    smallest_head: float = 3.0
    """Least radius in pixels of an adult's head at the farthest place of a person."""

    largest_head: float = 14.0
    """Greatest radius in pixels of an adult's head at the nearest place of a person."""

    def __post_init__(self) -> None:
        sizes = min(self.width, self.height) >= 32 and 0 <= self.empty_fraction <= 1
        heads = 1.5 <= 1.5 * self.smallest_head <= self.largest_head < math.inf
        # Heads are numbered in 16 bits.
        if not (sizes and heads and 0 <= self.max_heads < 2**16):
            raise ValueError(f"scenes cannot be rendered with {self}")


def write_scenes(
    folder: Path, *, images: int, seed: int, settings: SceneSettings, track: Track = untracked
) -> None:
    """Render scenes into a new folder of JPEG files with one ``points.csv``, atomically.

    The table has the header ``image,x,y`` and one row per head, in pixels with two decimals; a
    scene without people has the row ``image,,``. A scene depends on ``seed``, its number and
    ``settings``, not on the number of scenes. The same call writes the same bytes.

    Args:
        folder: Target; it must be missing or empty.
        images: Number of scenes, at least 1.
        seed: At least 0.
        settings: Size and crowd of the scenes.
        track: Progress reporting.

    Raises:
        UsageError: If ``folder`` is not empty.
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
    """Write the samples that ``render`` makes from a number and a random generator each.

    Numbers start at 1. Layout and errors are those of :func:`write_scenes`.
    """
    if images < 1 or seed < 0:
        raise ValueError(f"needs images >= 1 and seed >= 0, got {images} and {seed}")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(
            f"{folder} is not empty, and rendered scenes need a folder of their own",
            next_step="give a folder that does not exist",
        )
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("image", "x", "y"))
    with atomic_folder(folder) as unfinished:
        for number in track(range(1, images + 1), label=label):
            rng = np.random.default_rng([seed, number])
            sample = render(number, rng)
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 96))]
            _, encoded = cv2.imencode(".jpg", sample.image[..., ::-1], quality)
            (unfinished / sample.name).write_bytes(encoded.tobytes())
            places = [(f"{x:.2f}", f"{y:.2f}") for x, y in sample.points] or [("", "")]
            rows.writerows((sample.name, x, y) for x, y in places)
        (unfinished / "points.csv").write_bytes(table.getvalue().encode("utf-8"))


def render_scene(rng: np.random.Generator, settings: SceneSettings, *, name: str) -> Sample:
    """Render one scene; all randomness comes from ``rng``.

    Returns:
        The picture before JPEG and the centres of all its heads, rounded to 0.01 pixels.
    """
    return render_with_owners(rng, settings, name=name)[0]


def render_with_owners(
    rng: np.random.Generator, settings: SceneSettings, *, name: str
) -> tuple[Sample, UInt16[np.ndarray, "height width"]]:
    """Render one scene with a map of its heads.

    Returns:
        The scene, and for each pixel ``i + 1`` where the head at ``points[i]`` is visible, else 0
        (read in the pixel's upper left quarter, as a pixel on an outline shows several things).
    """
    camera = _camera(rng, settings)
    light = Light.random(rng)
    backdrop = np.empty((settings.height, settings.width, 3), np.uint8)
    scenery.paint_sky(backdrop, camera, rng)
    half_width = BACKDROPS[pick(rng, list(BACKDROPS))](backdrop, camera, rng)
    people = _crowd(rng, settings, camera, half_width)
    objects = _objects(rng, camera, half_width)

    canvas = _paint(backdrop, camera, light, people, objects)
    pixels = np.bincount(canvas.owners().ravel(), minlength=len(people) + 1)[1:]
    visible_people = [
        person
        for person, visible in zip(people, pixels, strict=True)
        if visible >= VISIBLE_PART * person.head_area(camera)
    ]
    if len(visible_people) < len(people):
        # Removing people only uncovers others, so painting once more is enough.
        people = visible_people
        canvas = _paint(backdrop, camera, light, people, objects)
    sample = Sample(
        name=name,
        image=scenery.photograph(canvas.reduced(), light, rng),
        points=np.array([person.head_in(camera) for person in people]).reshape(-1, 2).round(2),
    )
    return sample, canvas.owners()


def _camera(rng: np.random.Generator, settings: SceneSettings) -> Camera:
    """Draw a camera that gives heads the sizes of ``settings`` and fills most rows with them."""
    near_head = rng.uniform(0.7, 1.0) * settings.largest_head
    near_head = max(near_head, 1.5 * settings.smallest_head)
    far_head = max(rng.uniform(0.2, 0.5) * near_head, settings.smallest_head)
    near, far = near_head / HEAD_RADIUS, far_head / HEAD_RADIUS
    # The rows of the nearest and the farthest heads determine the heights of camera and horizon.
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
    """Place people on a jittered grid, denser around a few centres; farthest first."""
    if settings.max_heads == 0 or rng.random() < settings.empty_fraction:
        return []
    # The square makes most scenes sparse and some dense; the mean is a third of the maximum.
    number = 1 + int((settings.max_heads - 1) * rng.random() ** 2 + 0.5)
    depths = np.arange(camera.nearest, camera.farthest, PERSONAL_SPACE)
    reach = min(half_width, camera.half_view(camera.farthest))
    across = np.arange(-reach, reach, PERSONAL_SPACE)
    x, depth = (axis.ravel() for axis in np.meshgrid(across, depths))
    x = x + rng.uniform(-0.2, 0.2, x.size)
    depth = depth + rng.uniform(-0.2, 0.2, x.size).clip(min=-0.1)
    density = np.full(x.size, rng.uniform(0.05, 0.6))
    for _ in range(int(rng.integers(1, 4))):
        centre, away = rng.uniform(-reach, reach), rng.uniform(camera.nearest, camera.farthest)
        spread = rng.uniform(1, 5)
        density += np.exp(-((x - centre) ** 2 + (depth - away) ** 2) / (2 * spread**2))
    density /= depth ** rng.uniform(0, 1.5)
    density[np.abs(x) > camera.width / 2 * depth / camera.focal] = 0
    number = min(number, int((density > 0).sum()))
    if number == 0:
        return []
    places = rng.choice(x.size, number, replace=False, p=density / density.sum())
    flow = rng.uniform(0, 2 * math.pi)
    people = []
    for place in places[np.argsort(-depth[places])]:
        turn = flow + rng.normal(0, 0.5) + math.pi * (rng.random() < 0.35)
        person = Person.random(rng, x=float(x[place]), depth=float(depth[place]), turn=turn)
        col, row = person.head_in(camera)
        # Rounded to 0.01, the centre must still lie inside the image.
        if 0 <= col <= camera.width - 0.01 and 0 <= row <= camera.height - 0.01:
            people.append(person)
    return people


def _objects(rng: np.random.Generator, camera: Camera, half_width: float) -> list[Object]:
    """Place a few objects anywhere on the ground."""
    objects = []
    kinds = [pick(rng, list(OBJECTS)) for _ in range(int(rng.integers(1, 3)))]
    for _ in range(int(rng.integers(0, 9))):
        depth = rng.uniform(1.2 * camera.nearest, 1.4 * camera.farthest)
        reach = min(half_width, camera.half_view(depth))
        kind, x = pick(rng, kinds), rng.uniform(-reach, reach)
        colour, size = varied(rng, pick(rng, FABRICS)), rng.uniform(0.8, 1.2)
        objects.append(Object(kind=kind, x=x, depth=depth, colour=colour, size=size))
    return objects


def _paint(
    backdrop: Pixels, camera: Camera, light: Light, people: list[Person], objects: list[Object]
) -> Canvas:
    """Paint people and objects in front of the backdrop; ``people[i]`` has the number ``i + 1``."""
    figures: list[Person | Object] = [*people, *objects]
    ground = backdrop.copy()
    shadows = [(figure.x, figure.depth, *figure.extent) for figure in figures]
    scenery.cast_shadows(ground, camera, light, shadows)
    scenery.add_haze(ground, camera, light)
    canvas, number = Canvas(ground), 0
    # Farthest first; people come in this order already, which keeps their numbers.
    for figure in sorted(figures, key=lambda figure: -figure.depth):
        pen = Pen(canvas, camera, light, x=figure.x, depth=figure.depth, size=figure.size)
        if isinstance(figure, Person):
            number += 1
            figure.paint(pen, number)
        else:
            figure.paint(pen)
    return canvas
