"""Plants, water and skies."""

import math

import cv2
import numpy as np

from benchmarks.negatives.surfaces import (
    Cells,
    Scene,
    Size,
    between,
    blended,
    coloured,
    grain,
    lying,
    noise,
    photo,
    plain,
    relief,
    soft_step,
    tilted,
)
from crowdcount.scenes.scenery import Colour, Pixels, mixed, palette, pick, scaled, varied


def _leaf(
    picture: Pixels, *, at: tuple[float, float], long: float, turn: float, colour: Colour
) -> None:
    """A leaf of two halves, one of them in its own shade."""
    along = np.array([math.cos(turn), math.sin(turn)])
    aside = np.array([-along[1], along[0]])
    shape = np.array([(-0.5, 0), (-0.25, 0.2), (0, 0.26), (0.25, 0.17), (0.5, 0)])
    for half, tone in ((1, 1.0), (-1, 0.82)):
        outline = at + long * (shape[:, :1] * along + half * shape[:, 1:] * aside)
        fixed = (outline * 16).round().astype(np.int32)
        cv2.fillConvexPoly(picture, fixed, scaled(colour, tone), cv2.LINE_AA, 4)


def foliage(rng: np.random.Generator, size: Size) -> Pixels:
    """Leaves over leaves, the deeper the darker."""
    height, width = size
    green = varied(rng, pick(rng, palette("5a8a3c 74943a 487848 8c9c4a 9c7c34")))
    scene = coloured(scaled(green, 0.22), grain(rng, size, slope=1.5, spread=0.25))
    picture = scene.clip(0, 255).astype(np.uint8)
    long = between(rng, 9, 70)
    hang = rng.uniform(0, 7)
    number = min(round(1.6 * height * width / long**2) + 4, 4000)
    for tone in (0.4, 0.6, 0.8, 1.0):
        clumps = noise(rng, size, slope=1.6)
        for _ in range(number):
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            lit = tone * (1 + 0.18 * float(clumps[int(y), int(x)])) * rng.uniform(0.8, 1.25)
            # Gaps stay between the clumps, and grow towards the top of the pile.
            if clumps[int(y), int(x)] > tone - 0.7:
                colour = mixed(scaled(green, lit), (200, 220, 150), rng.uniform(0, 0.15))
                turn = hang + rng.normal(0, 0.9)
                size_ = long * rng.uniform(0.6, 1.2)
                _leaf(picture, at=(x, y), long=size_, turn=turn, colour=colour)
    return photo(rng, picture.astype(np.float32))


def grass(rng: np.random.Generator, size: Size) -> Pixels:
    """A meadow: blades that grow longer towards the camera."""
    height, width = size
    green = varied(rng, pick(rng, palette("6c8c40 5c7c3a 8c9450 4e7438")))
    patches = noise(rng, size, slope=1.6)
    scene = coloured(scaled(green, 0.5), (1 + 0.15 * patches).clip(0.2, 2).astype(np.float32))
    picture = scene.clip(0, 255).astype(np.uint8)
    near, far = between(rng, 14, 60), rng.uniform(3, 8)
    number = min(round(14 * height * width / (near * far)) + 20, 14000)
    for y in np.sort(height * np.sqrt(rng.uniform(0, 1, number)) * 1.1).tolist():
        x, long = rng.uniform(0, width), far + (near - far) * y / height
        place = patches[min(int(y), height - 1), int(x)]
        colour = scaled(green, rng.uniform(0.55, 1.3) * (1 + 0.12 * float(place)))
        tip = (round(16 * (x + rng.normal(0, 0.35) * long)), round(16 * (y - long)))
        foot, thick = (round(16 * x), round(16 * y)), max(round(long / 22), 1)
        cv2.line(picture, foot, tip, colour, thick, cv2.LINE_AA, 4)
    return photo(rng, picture.astype(np.float32))


def flowers(rng: np.random.Generator, size: Size) -> Pixels:
    """A bed of flowers, all of one or two colours."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        spacing = between(rng, 12, 60)
        cells = Cells.drawn(rng, size, spacing=spacing, jitter=0.4)
        turn = cells.each(rng.uniform(0, 7, cells.count))
        petals = 0.78 + 0.22 * np.cos(pick(rng, [5, 6, 8]) * cells.angle + turn)
        reach = cells.each(rng.uniform(0.25, 0.48, cells.count) * spacing)
        part = cells.distance / (reach * petals)
        bloom = soft_step((1 - part) * reach, at=0, over=1.5)
        kinds = np.array([varied(rng, pick(rng, palette(BLOOMS))) for _ in range(2)])
        colours = kinds[(rng.random(cells.count) < 0.8).astype(int)]
        colours = colours * rng.uniform(0.75, 1.1, (cells.count, 1))
        shade = (0.65 + 0.4 * part).clip(0, 1.05)
        leaves = coloured(varied(rng, (62, 96, 48)), (1 + 0.3 * noise(rng, size, slope=0.8)))
        scene = blended(leaves, cells.colours(colours) * shade[..., None], bloom)
        heart = soft_step((0.28 - part) * reach, at=0, over=1.5)
        return blended(scene, plain(size, (196, 160, 50)), heart)

    return photo(rng, pick(rng, [tilted, lying])(rng, size, paint))


BLOOMS = "d24632 e8c034 e6e2da b44a8c d87a9c 8458a8 e88a3a"


def sky(rng: np.random.Generator, size: Size) -> Pixels:
    """Clouds: a few, or a whole cover."""
    height, width = size
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None].repeat(width, axis=1)
    high, low = pick(rng, list(zip(palette("4a7cbc 8ca0b4 c08a70"), SKY_LOW, strict=True)))
    sky = blended(plain(size, varied(rng, high)), plain(size, low), down)
    shape = noise(rng, size, slope=rng.uniform(1.5, 1.9), stretch=(1, rng.uniform(1, 2.5)))
    cover = soft_step(shape, at=rng.uniform(-1.2, 1.2), over=rng.uniform(1, 2.5))
    under = relief(cv2.GaussianBlur(shape, (0, 0), 3), angle=1.6, strength=2)
    cloud = coloured(varied(rng, (232, 232, 234)), (0.9 * under).clip(0.6, 1.1))
    return photo(rng, blended(sky, cloud, cover), shadows=False)


SKY_LOW = palette("c8dcec ccd0d4 f0c8a0")


def water(rng: np.random.Generator, size: Size) -> Pixels:
    """Waves that mirror the sky and glitter in the sun."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        long = rng.uniform(1.5, 4)
        waves = noise(rng, size, slope=rng.uniform(1.2, 1.6), stretch=(1, long))
        waves = cv2.GaussianBlur(waves, (0, 0), between(rng, 0.8, 3.5))
        slope = relief(waves, angle=1.3, strength=1) - 1
        slope = slope / max(float(slope.std()), 1e-6)
        deep = varied(rng, pick(rng, palette("24506a 3c6c6c 5a6658 2c4660")))
        mirrored = soft_step(slope, at=0.4, over=3)
        scene = blended(plain(size, deep), plain(size, varied(rng, (170, 190, 205))), mirrored)
        glitter = soft_step(slope, at=rng.uniform(2, 3.2), over=0.5)
        return np.asarray(scene + 200 * glitter[..., None])

    return photo(rng, lying(rng, size, paint), shadows=False)


def stars(rng: np.random.Generator, size: Size) -> Pixels:
    """A starry night, or sparks."""
    height, width = size
    band = noise(rng, size, slope=2)
    scene = coloured(varied(rng, (20, 24, 40)), (0.7 + 0.35 * band).clip(0, 3))
    number = round(rng.uniform(0.0005, 0.004) * height * width)
    rows, cols = rng.integers(0, height, number), rng.integers(0, width, number)
    points = np.zeros((height, width, 3), np.float32)
    tints = np.array([(255, 240, 220), (220, 230, 255), (255, 255, 255)])
    light = 30 * (1 + rng.pareto(1.2, (number, 1)).clip(0, 60))
    points[rows, cols] = light * tints[rng.integers(0, 3, number)] / 255
    scene = scene + sum(part * cv2.GaussianBlur(points, (0, 0), s) for part, s in GLOW)
    return photo(rng, scene, shadows=False)


GLOW = ((2.5, 0.7), (1.0, 2.5))
