"""Made objects: keyboards, facades, fences, cars, seats, lamps."""

import cv2
import numpy as np

from benchmarks.negatives.surfaces import (
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
    soft_step,
    tilted,
)
from crowdcount.scenes.scene import SceneSettings, render_scene
from crowdcount.scenes.scenery import (
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


def panel(rng: np.random.Generator, size: Size) -> Pixels:
    """The front of a machine: push buttons and lamps in rows, round and square."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        wide = between(rng, 16, 100)
        grid = Courses.of(size, high=wide * rng.uniform(0.9, 1.5), wide=wide)
        margin = rng.uniform(0.1, 0.3) * wide
        square = grid.inside(margin=margin, corner=rng.uniform(0.05, 0.2) * wide)
        half = min(grid.high, grid.wide) / 2 - margin
        away = np.hypot(grid.across - grid.wide / 2, grid.down - grid.high / 2)
        is_round = grid.each((rng.random(grid.count) < rng.choice([0, 0.5, 1])).astype(float))
        depth = np.where(is_round > 0, half - away, square)
        present = grid.each((rng.random(grid.count) < 0.85).astype(float))
        kinds = np.array([varied(rng, pick(rng, FABRICS)) for _ in range(3)])
        colours = kinds[rng.integers(0, 3, grid.count)][grid.row, grid.col]
        lamp = grid.each(np.where(rng.random(grid.count) < 0.2, 1.6, 1.0))
        bulge = 1.12 - 0.3 * grid.down / grid.high
        key = np.asarray(colours, np.float32) * (bulge * lamp)[..., None]
        tone = grain(rng, size, slope=1.2, spread=0.05)
        metal = coloured(varied(rng, pick(rng, palette("a8aaac 5c6064 d0ccc0 3a4048"))), tone)
        edge = soft_step(depth, at=-0.05 * wide, over=0.05 * wide) * present
        button = soft_step(depth, at=0, over=1.3) * present
        return blended(metal * (1 - 0.5 * edge)[..., None], key, button)

    return photo(rng, tilted(rng, size, paint))


def facade(rng: np.random.Generator, size: Size) -> Pixels:
    """Windows in rows, with frames, sills and reflections."""

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
    """Pickets, bars or wire mesh in front of a blurred garden."""

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
    """A backdrop of the demo's scenes, with objects but without people."""
    settings = SceneSettings(width=max(size[1], 32), height=max(size[0], 32), max_heads=0)
    return render_scene(rng, settings, name="empty").image[: size[0], : size[1]]
