"""Print and handwriting: pages, boards, posters."""

from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.negatives.surfaces import (
    Scene,
    Size,
    between,
    coloured,
    grain,
    noise,
    photo,
    plain,
    relief,
    tilted,
)
from crowdcount.scenes.scenery import (
    FABRICS,
    WALLS,
    Number,
    Pixels,
    palette,
    pick,
    varied,
)


def _font(rng: np.random.Generator, points: Number) -> ImageFont.FreeTypeFont:
    """One of the fonts that come with matplotlib."""
    name = pick(rng, FONTS)
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), max(round(points), 4))


FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral")


def _word(rng: np.random.Generator) -> str:
    parts = (pick(rng, "bdfglmnprstvkh") + pick(rng, "aeiou") for _ in range(rng.integers(1, 5)))
    word = "".join(parts) + pick(rng, ["", "n", "r", "s", "."])
    return pick(rng, [word, word, word, word.capitalize(), word.upper()])


def text(rng: np.random.Generator, size: Size) -> Pixels:
    """A printed page: headings and columns of lines."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        height, width = size
        ink, paper = (40, 40, 44), varied(rng, (232, 228, 216))
        if rng.random() < 0.15:
            ink, paper = (226, 226, 220), (34, 36, 42)
        page = Image.new("RGB", (width, height), tuple(map(round, paper)))
        draw = ImageDraw.Draw(page)
        points, columns = between(rng, 8, 30), int(rng.integers(1, 4))
        font, column = _font(rng, points), width / columns
        for number in range(columns):
            y = rng.uniform(0, 2) * points
            while y < height:
                heading = rng.random() < 0.04
                face = _font(rng, 1.8 * points) if heading else font
                line, end = "", number * column + column * rng.choice([0.92, 0.92, 0.92, 0.6])
                while draw.textlength(line, face) + number * column < end:
                    line += _word(rng) + " "
                draw.text((number * column + 0.03 * column, y), line[:-1], ink, face)
                blank = rng.random() < 0.08
                y += points * (2.4 if heading or blank else 1.3)
            # Lines are cut where their column ends.
            gutter = (number + 0.95) * column
            draw.rectangle((gutter, 0, (number + 1) * column, height), tuple(map(round, paper)))
        bend = relief(noise(rng, size, slope=2.4) * 30, angle=rng.uniform(0, 7), strength=0.1)
        return np.asarray(np.asarray(page, np.float32) * bend[..., None])

    return photo(rng, tilted(rng, size, paint))


def timetable(rng: np.random.Generator, size: Size) -> Pixels:
    """A board of numbers: departures, prices, a calendar."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        height, width = size
        dark = rng.random() < 0.4
        board = varied(rng, (28, 32, 44) if dark else pick(rng, palette("e4e4dc e8e0b8 c8d4dc")))
        page = Image.new("RGB", (width, height), tuple(map(round, board)))
        draw, ink = ImageDraw.Draw(page), (236, 214, 120) if dark else (36, 36, 44)
        points = between(rng, 8, 44)
        face, wide = _font(rng, points), points * rng.uniform(2.6, 5)
        for y in np.arange(rng.uniform(-1, 1) * points, height, 1.5 * points).tolist():
            if rng.random() < 0.6:
                draw.line((0, y, width, y), ink, 1)
            for x in np.arange(0.2 * points, width, wide).tolist():
                if rng.random() < 0.9:
                    number = int(rng.integers(0, 2400))
                    label = f"{number // 100}{pick(rng, ':.-')}{number % 100:02}"
                    draw.text((x, y), label, ink, face)
        return np.asarray(
            np.asarray(page, np.float32) * grain(rng, size, slope=1.3, spread=0.05)[..., None]
        )

    return photo(rng, tilted(rng, size, paint))


def handwriting(rng: np.random.Generator, size: Size) -> Pixels:
    """Lines of loops in ink or chalk, often on ruled paper."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        height, width = size
        chalk = rng.random() < 0.25
        paper = varied(rng, pick(rng, palette("2c4438 34363c" if chalk else "ece8dc e0e4ec")))
        ink = varied(rng, (220, 222, 218) if chalk else pick(rng, palette("203c8c 2a2a30")))
        page = plain(size, paper).clip(0, 255).astype(np.uint8)
        line = between(rng, 14, 70)
        ruled, lean = rng.random() < 0.5, rng.uniform(-0.3, 0.6)
        for y in np.arange(line, height + line, line).tolist():
            if ruled:
                cv2.line(page, (0, round(y)), (width, round(y)), (160, 176, 204), 1)
            x = rng.uniform(0, 4) * line
            while x < width * rng.choice([1.0, 0.7]):
                # A word: a pen that goes round while it moves on, now higher, now lower.
                steps = np.arange(0, rng.uniform(8, 40), 0.35)
                tall = np.repeat(rng.choice([0.22, 0.22, 0.22, 0.5], len(steps) // 16 + 1), 16)
                down = y - line * (0.25 + tall[: len(steps)] * np.sin(steps))
                along = x + line * (0.06 * steps + 0.12 * np.cos(steps)) + lean * (y - down)
                stroke = np.stack([along, down], axis=1)
                fixed = (16 * stroke).round().astype(np.int32)
                cv2.polylines(page, [fixed], False, ink, max(round(line / 16), 1), cv2.LINE_AA, 4)
                x += line * (0.06 * float(steps[-1]) + rng.uniform(0.4, 0.8))
        return np.asarray(
            page.astype(np.float32) * grain(rng, size, slope=1.2, spread=0.05)[..., None]
        )

    return photo(rng, tilted(rng, size, paint))


def posters(rng: np.random.Generator, size: Size) -> Pixels:
    """A wall of posters, or the signs of shops: letters, lines and round shapes."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        height, width = size
        wall = coloured(varied(rng, pick(rng, WALLS)), grain(rng, size, slope=1, spread=0.07))
        page = Image.fromarray(wall.clip(0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(page)
        high = between(rng, 90, 420)
        wide = high * rng.uniform(0.6, 1.5)
        for top in np.arange(-0.3 * high, height, 1.08 * high).tolist():
            for left in np.arange(-rng.uniform(0, 1) * wide, width, 1.06 * wide).tolist():
                if rng.random() < 0.85:
                    _poster(rng, draw, left=left, top=top, high=high, wide=wide)
        wear = grain(rng, size, slope=1.3, spread=0.06)
        return np.asarray(np.asarray(page, np.float32) * wear[..., None])

    return photo(rng, tilted(rng, size, paint))


def _poster(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    *,
    left: float,
    top: float,
    high: float,
    wide: float,
) -> None:
    """Paper with some shapes and some lines of text."""

    def colour() -> tuple[int, int, int]:
        red, green, blue = varied(rng, pick(rng, FABRICS))
        return round(red), round(green), round(blue)

    draw.rectangle((left, top, left + wide, top + high), colour())
    for _ in range(int(rng.integers(0, 7))):
        x, y, r = rng.uniform(0, wide), rng.uniform(0, high), rng.uniform(0.03, 0.25) * high
        box = [left + x - r, top + y - r, left + x + r, top + y + r]
        box = np.clip(box, [left, top] * 2, [left + wide, top + high] * 2).tolist()
        if box[2] > box[0] + 1 and box[3] > box[1] + 1:
            pick(rng, [draw.ellipse, draw.rectangle])(box, colour())
    y, ink = 0.04 * high, colour()
    while y < 0.9 * high:
        points = high * pick(rng, [0.05, 0.05, 0.08, 0.16])
        face, line = _font(rng, points), _word(rng)
        while draw.textlength(f"{line} {(more := _word(rng))}", face) < 0.9 * wide:
            line = f"{line} {more}"
        if draw.textlength(line, face) < 0.95 * wide:
            draw.text((left + 0.05 * wide, top + y), line, ink, face)
        y += 1.5 * points + (0.3 * high if rng.random() < 0.15 else 0)
