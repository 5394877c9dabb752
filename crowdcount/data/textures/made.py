"""Things that people made: print, keys, houses, cars, seats, goods."""

from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from crowdcount.data.scenery import (
    FABRICS,
    WALLS,
    Colour,
    Number,
    Pixels,
    palette,
    pick,
    scaled,
    varied,
)
from crowdcount.data.synthetic import SceneSettings, render_scene
from crowdcount.data.textures.surfaces import (
    Balls,
    Cells,
    Courses,
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


def keyboard(rng: np.random.Generator, size: Size) -> Pixels:
    """Keyboards, one or a shelf of them, with a space bar in every fifth row."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        key = between(rng, 14, 80)
        keys = Courses.of(size, high=key, wide=key, shift=0.28)
        bars = Courses.of(size, high=key, wide=key * 6)
        in_row = keys.row % 6
        caps = keys.inside(margin=0.07 * key, corner=0.12 * key, bottom=0.08 * key)
        bar = bars.inside(margin=0.07 * key, corner=0.12 * key, bottom=0.08 * key)
        depth = np.where(in_row == 4, bar, caps)
        cap, edge = soft_step(depth, at=0, over=1.2), soft_step(depth, at=0.1 * key, over=0.1 * key)
        dark = rng.random() < 0.6
        top: Colour = varied(rng, (52, 54, 58) if dark else (216, 214, 206))
        ink: Colour = (200, 202, 205) if dark else (60, 60, 64)
        case = scaled(top, 0.55 if dark else 0.8)
        light = (0.72 + 0.28 * edge) * (1.08 - 0.16 * keys.down / key)
        special = 1 - 0.15 * (rng.random(keys.count) < 0.12)
        surface = coloured(top, light * keys.each(special))
        scene = blended(coloured(case, np.full(size, 0.8, np.float32)), surface, cap)
        legend = np.zeros(size, np.uint8)
        rows, cols = keys.count
        for row, col in np.ndindex(rows, cols):
            if row % 6 < 4:
                place = round((col + 0.3 - row * 0.28 % 1) * key), round((row + 0.55) * key)
                label = pick(rng, "QWERTYUIOPASDFGHJKLZXCVBNM1234567890")
                thick = max(round(key / 26), 1)
                cv2.putText(legend, label, place, 0, key / 75, (255,), thick, cv2.LINE_AA)
        scene = blended(scene, plain(size, ink), legend / 255.0)
        desk = coloured(varied(rng, pick(rng, WALLS)), grain(rng, size, slope=1, spread=0.05))
        gap = (in_row == 5).astype(np.float32)
        scene = blended(scene, desk, np.asarray(cv2.GaussianBlur(gap, (0, 0), 1)))
        return np.asarray(scene * grain(rng, size, slope=1.2, spread=0.04)[..., None])

    return photo(rng, tilted(rng, size, paint))


def facade(rng: np.random.Generator, size: Size) -> Pixels:
    """Windows in rows, each with its frame, its sill and what it mirrors."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        wide = between(rng, 24, 150)
        rooms = Courses.of(size, high=wide * rng.uniform(0.9, 1.6), wide=wide)
        high, margin = rooms.high, rng.uniform(0.12, 0.28) * wide
        low, above = rng.uniform(0.05, 0.3) * high, rng.uniform(0, 0.1) * high
        depth = rooms.inside(margin=margin, top=above, bottom=low)
        opening = soft_step(depth, at=0, over=1.2)
        pane = soft_step(depth, at=0.05 * wide, over=1.2)
        bar = np.abs(rooms.across - wide / 2) < max(0.02 * wide, 0.7)
        pane = pane * (1 - bar.astype(np.float32))
        wall = coloured(varied(rng, pick(rng, WALLS)), grain(rng, size, slope=1, spread=0.06))
        sill = (rooms.down > high - margin - low) & (rooms.down < high - margin - low * 0.7)
        sill &= np.abs(rooms.across - wide / 2) < wide / 2 - 0.7 * margin
        wall = wall * (1 - 0.35 * sill[..., None].astype(np.float32))
        frame = plain(size, pick(rng, palette("e4e2dc 5a4a3c 484c52")))
        mirrored = noise(rng, size, slope=1.7) * 0.18 + rooms.each(
            rng.uniform(0.4, 1.2, rooms.count)
        )
        glass = coloured((84, 96, 112), mirrored - 0.3 * rooms.down / high + 0.2)
        curtain = rooms.each((rng.random(rooms.count) < 0.25) * rng.uniform(0.3, 0.8, rooms.count))
        drawn = soft_step(curtain - rooms.down / high, at=0, over=0.02)
        glass = blended(glass, plain(size, varied(rng, (196, 188, 172))), drawn)
        return blended(blended(wall, frame, opening), glass, pane)

    return photo(rng, tilted(rng, size, paint))


def fence(rng: np.random.Generator, size: Size) -> Pixels:
    """Pickets, bars or wire mesh before something out of focus."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        leaves = (1 + 0.35 * noise(rng, size, slope=1.5)).clip(0, 2)
        garden = np.asarray(
            cv2.GaussianBlur(coloured(varied(rng, (88, 108, 70)), leaves), (0, 0), 3)
        )
        step = between(rng, 14, 70)
        rows, cols = np.indices(size, np.float32)
        if rng.random() < 0.35:
            wire = np.minimum(
                np.abs((rows + cols) % step - step / 2), np.abs((rows - cols) % step - step / 2)
            )
            bars = soft_step(max(0.04 * step, 1) - wire, at=0, over=1.2)
            tone = grain(rng, size, slope=1, spread=0.1)
        else:
            slats = Courses.of(size, high=size[0], wide=step)
            half = rng.uniform(0.15, 0.42) * step
            x = (slats.across - step / 2) / half
            # Pickets end below the upper edge, in a point or round.
            top = rng.uniform(0, 0.25) * size[0] + pick(rng, [0.0, 1.0]) * np.abs(x) * half
            shown = np.minimum((1 - np.abs(x)) * half, rows - top)
            rail = np.minimum(np.abs(rows - 0.4 * size[0]), np.abs(rows - 0.85 * size[0]))
            across = (0.2 * step) - rail
            bars = soft_step(np.maximum(shown, across), at=0, over=1.5)
            tone = 1 + slats.each(rng.normal(0, 0.08, slats.count)) - 0.3 * x.clip(-1, 1) ** 2
            tone = tone + noise(rng, size, slope=0.8, stretch=(20, 1)) * 0.08
        colour = varied(rng, pick(rng, palette("d8d4cc 7c5a3c 484c50 8c8478 3c5444")))
        return blended(garden, coloured(colour, tone), bars)

    return photo(rng, tilted(rng, size, paint, most=0.15))


def cars(rng: np.random.Generator, size: Size) -> Pixels:
    """Parked cars in rows: round wheels, bright bodies, dark windows."""
    height, width = size
    ground = coloured(varied(rng, (112, 112, 114)), grain(rng, size, slope=0.8, spread=0.1))
    picture = ground.clip(0, 255).astype(np.uint8)
    long = rng.uniform(0.12, 0.5) * width
    bottom = 0.25 * height
    while bottom < 1.25 * height:
        left = -rng.uniform(0, 1) * long
        while left < width:
            colour = varied(rng, pick(rng, palette("c8ccd0 2c2e34 9a1e22 2a4a78 e8e8e6 6c7074")))
            _car(picture, left=left, bottom=bottom, long=long * rng.uniform(0.92, 1), colour=colour)
            left += long * rng.uniform(1.05, 1.25)
        bottom += long * rng.uniform(0.38, 0.5)
        long *= 1.12
    sheen = 1 + 0.1 * noise(rng, size, slope=1.8)
    return photo(rng, picture.astype(np.float32) * sheen[..., None])


def _car(picture: Pixels, *, left: float, bottom: float, long: float, colour: Colour) -> None:
    """A car from its side."""

    def place(x: Number, y: Number) -> tuple[int, int]:
        return round(16 * (left + x * long)), round(16 * (bottom - y * long))

    def fill(outline: list[tuple[Number, Number]], colour: Colour) -> None:
        fixed = np.array([place(*point) for point in outline], np.int32)
        cv2.fillPoly(picture, [fixed], colour, cv2.LINE_AA, 4)

    def disc(x: Number, r: Number, colour: Colour) -> None:
        radius = max(round(16 * r * long), 8)
        cv2.circle(picture, place(x, 0.075), radius, colour, cv2.FILLED, cv2.LINE_AA, 4)

    fill([(0.03, 0.0), (0.97, 0.0), (0.99, -0.03), (0.01, -0.03)], (40, 40, 42))
    fill(CAR_BODY, colour)
    fill([(0, 0.12), (1, 0.12), (0.99, 0.05), (0.01, 0.05)], scaled(colour, 0.72))
    fill([(0.03, 0.22), (0.97, 0.21), (0.97, 0.2), (0.03, 0.205)], scaled(colour, 1.25))
    fill(CAR_CABIN, scaled(colour, 0.9))
    for window in CAR_WINDOWS:
        fill(window, (50, 58, 66))
    for x in (0.2, 0.8):
        for r, tone in ((0.1, (24, 24, 26)), (0.082, (44, 44, 46)), (0.055, (150, 152, 156))):
            disc(x, r, tone)
        disc(x, 0.02, (90, 92, 96))


CAR_BODY: list[tuple[Number, Number]] = [
    (0, 0.06), (0.005, 0.17), (0.05, 0.21), (0.25, 0.235),
    (0.8, 0.235), (0.96, 0.21), (1, 0.16), (1, 0.06),
]  # fmt: skip
CAR_CABIN: list[tuple[Number, Number]] = [
    (0.2, 0.23), (0.34, 0.335), (0.45, 0.35), (0.65, 0.35), (0.76, 0.33), (0.86, 0.23)
]  # fmt: skip
CAR_WINDOWS: list[list[tuple[Number, Number]]] = [
    [(0.26, 0.235), (0.36, 0.32), (0.52, 0.33), (0.52, 0.235)],
    [(0.54, 0.235), (0.54, 0.33), (0.64, 0.33), (0.74, 0.31), (0.8, 0.235)],
]


def seats(rng: np.random.Generator, size: Size) -> Pixels:
    """Empty stands: the backs of seats in rows on steps."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        wide = between(rng, 9, 60)
        seats = Courses.of(
            size, high=wide * rng.uniform(1, 1.7), wide=wide, shift=pick(rng, [0, 0.5])
        )
        back = seats.inside(
            margin=0.08 * wide, corner=rng.uniform(0.1, 0.4) * wide, bottom=0.3 * seats.high
        )
        part = soft_step(back, at=0, over=1.3)
        folded = rng.uniform(0.8, 1.15, seats.count)
        light = 0.75 + 0.35 * (1 - seats.down / seats.high)
        light = light * (1 - 0.35 * soft_step(-back, at=-0.07 * wide, over=0.08 * wide))
        kinds = np.array([varied(rng, pick(rng, FABRICS)) for _ in range(2)])
        which = (rng.random(seats.count) < rng.choice([0, 0.1, 0.5])).astype(int)
        colours = (kinds[which] * folded[..., None])[seats.row, seats.col]
        step = coloured((136, 134, 130), 1 - 0.45 * seats.down / seats.high)
        step = step * grain(rng, size, slope=0.8, spread=0.05)[..., None]
        return np.asarray(blended(step, colours * light[..., None], part))

    return photo(rng, pick(rng, [tilted, lying])(rng, size, paint))


def fruit(rng: np.random.Generator, size: Size) -> Pixels:
    """Fruit or balls in heaps, a few sorts beside each other."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        spacing = between(rng, 9, 70)
        flat = rng.uniform(0.7, 0.9)
        cells = Cells.drawn(rng, size, spacing=spacing, jitter=rng.uniform(0, 0.16), flat=flat)
        radius = cells.each(rng.uniform(0.46, 0.6, cells.count) * spacing)
        balls = Balls.of(cells, radius, angle=rng.uniform(3.4, 6))
        sorts = np.array([varied(rng, pick(rng, palette(FRUITS))) for _ in range(4)])
        crates = Courses.of(
            size, high=spacing * rng.uniform(5, 12), wide=spacing * rng.uniform(5, 14)
        )
        sort = crates.each(rng.integers(0, 4, crates.count).astype(float)).astype(int)
        tone = cells.each(rng.normal(1, 0.09, cells.count)) * grain(rng, size, slope=1, spread=0.05)
        skin = np.asarray(sorts, np.float32)[sort] * (tone * balls.brightness)[..., None]
        skin = skin + rng.uniform(10, 190) * balls.gloss[..., None]
        return blended(plain(size, (30, 26, 22)), skin, balls.covers)

    return photo(rng, pick(rng, [tilted, lying])(rng, size, paint))


FRUITS = "d8882c c23428 8cac3c e2c244 6c3a54 e0b088 4a7034 e8e4d8 4c4e58 c87838"


def caps(rng: np.random.Generator, size: Size) -> Pixels:
    """Bottle caps or coins in straight rows: a rim, a ring and a letter."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        spacing = between(rng, 12, 80)
        cells = Cells.drawn(rng, size, spacing=spacing, jitter=0.03, stagger=pick(rng, [0, 0.5]))
        radius = rng.uniform(0.36, 0.46) * spacing
        crimps = 1 + 0.025 * np.cos(21 * cells.angle)
        part = cells.distance / (radius * crimps)
        cover = soft_step((1 - part) * radius, at=0, over=1.4)
        rim = soft_step(part, at=0.82, over=0.12)
        ring = soft_step(0.06 - np.abs(part - 0.62), at=0, over=0.05)
        kinds = np.array([varied(rng, pick(rng, FABRICS)) for _ in range(3)])
        colours = kinds[rng.integers(0, 3, cells.count)] * rng.uniform(0.85, 1.1, (cells.count, 1))
        lit = (
            1
            + 0.25 * rim * np.cos(cells.angle - rng.uniform(0, 7))
            + 0.1 * np.cos(21 * cells.angle) * rim
        )
        print_ = plain(size, pick(rng, palette("f0ece0 202024 c8a040")))
        bars = np.abs(cells.across) < 0.1 * radius
        bars &= np.abs(cells.down) < 0.35 * radius
        mark = np.maximum(ring, bars.astype(np.float32))
        disc = blended(cells.colours(colours), print_, mark * 0.8)
        table = coloured(varied(rng, pick(rng, WALLS)), grain(rng, size, slope=1, spread=0.06))
        shadow = soft_step((1.25 - part) * radius, at=0, over=0.4 * float(radius))
        table = table * (1 - 0.5 * shadow)[..., None]
        return blended(table, disc * lit[..., None], cover)

    return photo(rng, tilted(rng, size, paint))


def bokeh(rng: np.random.Generator, size: Size) -> Pixels:
    """Lights at night, far out of focus."""
    height, width = size
    scene = coloured(varied(rng, (34, 30, 40)), (1 + 0.5 * noise(rng, size, slope=2)).clip(0.1, 3))
    largest = between(rng, 7, 50)
    hues = palette("ffd090 ff9048 ff5a4a 90b8ff fff0e0 80ffb0")
    for _ in range(int(rng.integers(30, 250))):
        x, y, r = (
            rng.uniform(0, width),
            rng.normal(0.55, 0.25) * height,
            rng.uniform(0.4, 1) * largest,
        )
        high, left = max(int(y - r) - 2, 0), max(int(x - r) - 2, 0)
        patch = scene[high : int(y + r) + 3, left : int(x + r) + 3]
        if min(patch.shape[:2]) > 0 and y + r > 0:
            rows, cols = np.indices(patch.shape[:2], np.float32)
            part = np.hypot(rows + high - y, cols + left - x) / r
            disc = soft_step((1 - part) * r, at=0, over=1.5) * (0.75 + 0.25 * part.clip(0, 1) ** 4)
            patch += coloured(pick(rng, hues), (disc * rng.uniform(0.1, 0.6)).astype(np.float32))
    return photo(rng, scene, shadows=False)


def empty_scene(rng: np.random.Generator, size: Size) -> Pixels:
    """A square, street, park, stadium or beach of the demo's scenes, with things but nobody."""
    settings = SceneSettings(width=max(size[1], 32), height=max(size[0], 32), max_heads=0)
    return render_scene(rng, settings, name="empty").image[: size[0], : size[1]]
