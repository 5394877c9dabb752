"""Many small things of one sort beside each other: round, dark and bright, as heads are."""

import numpy as np

from crowdcount.data.scenery import FABRICS, WALLS, Pixels, palette, pick, varied
from crowdcount.data.textures.surfaces import (
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
    soft_step,
    tilted,
)


def buttons(rng: np.random.Generator, size: Size) -> Pixels:
    """Buttons of clothes in a heap: a raised rim, and two or four holes."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        spacing = between(rng, 10, 80)
        cells = Cells.drawn(rng, size, spacing=spacing, jitter=rng.uniform(0.05, 0.3), flat=0.9)
        radius = cells.each(rng.uniform(0.35, 0.6, cells.count) * spacing)
        part = cells.distance / radius
        turn = cells.each(rng.uniform(0, 7, cells.count))
        fourfold = cells.each(1.0 + (rng.random(cells.count) < 0.6))
        holes = soft_step(np.cos(2 * fourfold * (cells.angle - turn)), at=0.55, over=0.5)
        holes = holes * soft_step(0.09 - np.abs(part - 0.25), at=0, over=0.06)
        kinds = np.array([varied(rng, pick(rng, FABRICS)) for _ in range(int(rng.integers(1, 6)))])
        colours = kinds[rng.integers(0, len(kinds), cells.count)]
        rim = soft_step(part, at=0.78, over=0.1)
        light = 0.92 + 0.2 * rim * np.cos(cells.angle - rng.uniform(0, 7)) - 0.1 * (1 - part)
        button = cells.colours(colours) * (light * (1 - 0.75 * holes))[..., None]
        cloth = coloured(varied(rng, pick(rng, WALLS)), grain(rng, size, slope=0.8, spread=0.08))
        shadow = soft_step((1.2 - part) * radius, at=0, over=0.35 * spacing)
        cover = soft_step((1 - part) * radius, at=0, over=1.4)
        return blended(cloth * (1 - 0.5 * shadow)[..., None], button, cover)

    return photo(rng, pick(rng, [tilted, lying])(rng, size, paint))


def logs(rng: np.random.Generator, size: Size) -> Pixels:
    """A stack of logs or pipes, seen from their ends."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        spacing = between(rng, 10, 110)
        cells = Cells.drawn(rng, size, spacing=spacing, jitter=rng.uniform(0, 0.2), flat=0.87)
        radius = cells.each(rng.uniform(0.4, 0.56, cells.count) * spacing)
        wobble = 1 + 0.05 * np.cos(3 * cells.angle + cells.each(rng.uniform(0, 7, cells.count)))
        part = cells.distance / (radius * wobble)
        cover = soft_step((1 - part) * radius, at=0, over=1.5)
        bark = soft_step(part, at=rng.uniform(0.85, 0.95), over=0.08)
        tone = cells.each(rng.normal(1, 0.13, cells.count)) * grain(rng, size, slope=1, spread=0.06)
        if rng.random() < 0.3:  # pipes are hollow
            inner = soft_step(part, at=rng.uniform(0.6, 0.85), over=0.08)
            face = coloured(varied(rng, pick(rng, palette("b4b6b8 b06a4e 6c7078"))), tone * inner)
        else:
            rings = 1 + 0.12 * np.sin(part * rng.uniform(12, 40) + noise(rng, size, slope=1.5))
            wood = varied(rng, pick(rng, palette("d0a878 b88c5c e0c49c a47a4e")))
            face = coloured(wood, tone * rings)
        skin = coloured(varied(rng, pick(rng, palette("5c4634 3c342c 8c8478"))), tone)
        return blended(plain(size, (22, 20, 18)), blended(face, skin, bark), cover)

    return photo(rng, tilted(rng, size, paint))


def beans(rng: np.random.Generator, size: Size) -> Pixels:
    """Beans, grains or sweets: long ones at all angles, each with a crease."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        spacing = between(rng, 7, 55)
        cells = Cells.drawn(rng, size, spacing=spacing, jitter=0.35)
        turn = cells.each(rng.uniform(0, 7, cells.count))
        along = cells.across * np.cos(turn) + cells.down * np.sin(turn)
        aside = cells.down * np.cos(turn) - cells.across * np.sin(turn)
        long, wide = rng.uniform(0.55, 0.8) * spacing, rng.uniform(0.25, 0.5) * spacing
        part = np.hypot(along / long, aside / wide)
        domed = np.sqrt((1 - part**2).clip(0, 1))
        light = 0.45 + 0.55 * domed + 0.2 * aside / spacing
        crease = soft_step(0.12 - np.abs(aside / wide), at=0, over=0.1) * (rng.random() < 0.5)
        kinds = np.array([varied(rng, pick(rng, palette(GRAINS))) for _ in range(2)])
        colours = kinds[(rng.random(cells.count) < rng.choice([0, 0.3])).astype(int)]
        colours = colours * rng.normal(1, 0.1, (cells.count, 1))
        bean = cells.colours(colours.clip(5, 250)) * (light * (1 - 0.5 * crease))[..., None]
        gap = np.asarray(varied(rng, (40, 34, 28)), np.float32) * np.ones((*size, 1), np.float32)
        return blended(gap, bean, soft_step((1 - part) * wide, at=0, over=1.4))

    return photo(rng, pick(rng, [tilted, lying])(rng, size, paint))


GRAINS = "4a2e1e 8c5a34 e4d8c0 2c2420 b84a38 d8b468 6c8c4a"


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
