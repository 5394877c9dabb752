"""Many small things of one sort beside each other: round, dark and bright, as heads are."""

import numpy as np

from benchmarks.negatives.surfaces import (
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
    soft_step,
    tilted,
)
from crowdcount.scenes.scenery import FABRICS, WALLS, Pixels, palette, pick, varied


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
