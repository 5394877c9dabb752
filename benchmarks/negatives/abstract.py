"""Plain colours, noise, patterns."""

import math

import cv2
import numpy as np

from benchmarks.negatives.surfaces import (
    Courses,
    Plane,
    Scene,
    Size,
    between,
    blended,
    grain,
    noise,
    photo,
    plain,
    soft_step,
    tilted,
)
from crowdcount.scenes.scenery import FABRICS, Colour, Number, Pixels, pick, varied


def plain_colour(rng: np.random.Generator, size: Size) -> Pixels:
    """One colour, like a lens held against a surface."""
    red, green, blue = rng.uniform(0, 255, 3).tolist()
    return photo(rng, plain(size, (red, green, blue)))


def _flat_or_photo(rng: np.random.Generator, size: Size, colour: Colour) -> Pixels:
    """Exactly one colour, or a photograph of something that has it."""
    if rng.random() < 0.5:
        return plain(size, colour).astype(np.uint8)
    return photo(rng, plain(size, colour), shadows=False)


def black(rng: np.random.Generator, size: Size) -> Pixels:
    """Black: a covered lens, with the noise of the sensor or without."""
    return _flat_or_photo(rng, size, (0, 0, 0))


def white(rng: np.random.Generator, size: Size) -> Pixels:
    """White: an empty sheet, or too much light."""
    return _flat_or_photo(rng, size, (255, 255, 255))


def gradient(rng: np.random.Generator, size: Size) -> Pixels:
    """A gradient between two colours, linear or radial."""
    rows, cols = np.indices(size, np.float32)
    y, x, turn = rows / size[0] - 0.5, cols / size[1] - 0.5, rng.uniform(0, 7)
    straight = 0.5 + 0.7 * (x * math.cos(turn) + y * math.sin(turn))
    part = pick(rng, [straight, 1.4 * np.hypot(x - rng.uniform(-0.4, 0.4), y)])
    one, other = (rng.uniform(0, 255, 3).tolist() for _ in range(2))
    first, second = (plain(size, (each[0], each[1], each[2])) for each in (one, other))
    return photo(rng, blended(first, second, part.clip(0, 1)), shadows=False)


def _pure_noise(rng: np.random.Generator, size: Size, *, slope: Number) -> Pixels:
    """Noise around grey, equal or independent in the three channels."""
    spread, grey = rng.uniform(25, 75), rng.uniform(90, 160)
    channels = [noise(rng, size, slope=slope) for _ in range(pick(rng, [1, 3]))]
    return _around_grey(channels, spread=spread, grey=grey)


def _around_grey(channels: list[Plane], *, spread: Number, grey: Number) -> Pixels:
    """Draw one plane for all three channels, or one for each."""
    values = grey + spread * np.stack(channels * (3 // len(channels)), axis=2)
    return values.clip(0, 255).astype(np.uint8)


def white_noise(rng: np.random.Generator, size: Size) -> Pixels:
    """White noise: independent pixels."""
    return _pure_noise(rng, size, slope=0)


def pink_noise(rng: np.random.Generator, size: Size) -> Pixels:
    """Pink noise: the spectrum of photographs without content."""
    return _pure_noise(rng, size, slope=rng.uniform(0.6, 1.4))


def blue_noise(rng: np.random.Generator, size: Size) -> Pixels:
    """Blue noise: only detail."""
    return _pure_noise(rng, size, slope=-1)


def speckle(rng: np.random.Generator, size: Size) -> Pixels:
    """Noise of one grain size: blots as large as heads, equal or independent in the channels."""
    width, spread, grey = between(rng, 0.8, 9), rng.uniform(25, 80), rng.uniform(70, 170)
    planes = range(pick(rng, [1, 3]))
    channels = [_softened(noise(rng, size, slope=0), width=width) for _ in planes]
    return _around_grey(channels, spread=spread, grey=grey)


def _softened(values: Plane, *, width: Number) -> Plane:
    """Remove detail finer than ``width`` pixels and restore the standard deviation of 1."""
    soft = np.asarray(cv2.GaussianBlur(values, (0, 0), width))
    return np.asarray(soft / max(float(soft.std()), 1e-6))


def camouflage(rng: np.random.Generator, size: Size) -> Pixels:
    """Patches of a few colours without any order: cloth, marble, worn paint."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        scene = plain(size, varied(rng, pick(rng, FABRICS)))
        for _ in range(int(rng.integers(1, 4))):
            shape = noise(rng, size, slope=rng.uniform(0.9, 1.8))
            shape = _softened(shape, width=between(rng, 0.7, 6))
            part = soft_step(shape, at=rng.uniform(-0.5, 1.2), over=rng.uniform(0.05, 1))
            scene = blended(scene, plain(size, varied(rng, pick(rng, FABRICS))), part)
        return np.asarray(scene * grain(rng, size, slope=0.8, spread=0.05)[..., None])

    return photo(rng, tilted(rng, size, paint))


def checkerboard(rng: np.random.Generator, size: Size) -> Pixels:
    """Squares of two colours."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        side = between(rng, 8, 90)
        squares = Courses.of(size, high=side, wide=side)
        odd = ((squares.row + squares.col) % 2).astype(np.float32)
        first, second = varied(rng, pick(rng, FABRICS)), varied(rng, (228, 226, 220))
        board = blended(plain(size, first), plain(size, second), odd)
        return np.asarray(board * grain(rng, size, slope=1.2, spread=0.05)[..., None])

    return photo(rng, tilted(rng, size, paint))


def stripes(rng: np.random.Generator, size: Size) -> Pixels:
    """Stripes of a few colours: awnings, blinds, corrugated iron."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        bands = Courses.of(size, high=size[0], wide=between(rng, 6, 70))
        kinds = np.array([varied(rng, pick(rng, FABRICS)) for _ in range(pick(rng, [1, 2, 3]))])
        colours = np.asarray(kinds, np.float32)[bands.col % len(kinds)]
        bulge = 1 - rng.uniform(0, 0.6) * (2 * bands.across / bands.wide - 1) ** 2
        wear = noise(rng, size, slope=1.2) * 0.06
        return np.asarray(colours * (bulge + wear)[..., None])

    def turned(rng: np.random.Generator, size: Size) -> Scene:
        if rng.random() < 0.5:
            return paint(rng, size)
        return np.ascontiguousarray(paint(rng, size[::-1]).transpose(1, 0, 2))

    return photo(rng, tilted(rng, size, turned))
