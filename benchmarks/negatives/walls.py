"""Walls, floors and cloth."""

import numpy as np

from benchmarks.negatives.surfaces import (
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
from crowdcount.scenes.scenery import FABRICS, WALLS, Pixels, palette, pick, scaled, varied


def brick(rng: np.random.Generator, size: Size) -> Pixels:
    """Bricks in mortar."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        high = between(rng, 9, 45)
        bricks = Courses.of(size, high=high, wide=high * rng.uniform(2, 3.2), shift=0.5)
        colour = varied(rng, pick(rng, palette("9c5a44 b06a4e 8a4a3c c09878 75483e")))
        rough = noise(rng, size, slope=0.9)
        depth = bricks.inside(margin=max(0.06 * high, 0.8)) + (0.04 * high) * rough
        brick = soft_step(depth, at=0, over=max(0.08 * high, 1))
        tone = 1 + bricks.each(rng.normal(0, 0.12, bricks.count)) + 0.07 * rough
        light = relief(brick, angle=rng.uniform(0, 7), strength=0.5)
        mortar = coloured(varied(rng, (168, 160, 150)), grain(rng, size, slope=0.5, spread=0.06))
        return np.asarray(blended(mortar, coloured(colour, tone), brick) * light[..., None])

    return photo(rng, tilted(rng, size, paint))


def tiles(rng: np.random.Generator, size: Size) -> Pixels:
    """Glazed tiles or paving slabs, now and then in two tones."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        side = between(rng, 14, 110)
        tiles = Courses.of(size, high=side, wide=side * pick(rng, [1, 1, 2]), shift=0)
        tone = rng.normal(0, 0.05, tiles.count)
        if rng.random() < 0.4:
            tone[::2, ::2] -= 0.35
            tone[1::2, 1::2] -= 0.35
        gloss = noise(rng, size, slope=2) * 0.06
        lean = tiles.each(rng.normal(0, 0.1, tiles.count)) * (tiles.across / tiles.wide - 0.5)
        colour = varied(rng, pick(rng, palette("d8d4c8 a8b8c4 b8a890 788c84 e4e0dc 6c7078")))
        joint = soft_step(tiles.inside(margin=max(0.02 * side, 0.7)), at=0, over=1.5)
        surface = coloured(colour, 1 + tiles.each(tone) + gloss + lean)
        return blended(plain(size, varied(rng, (120, 116, 110))), surface, joint)

    return photo(rng, pick(rng, [tilted, lying])(rng, size, paint))


def plaster(rng: np.random.Generator, size: Size) -> Pixels:
    """A rough wall with stains."""
    heights = noise(rng, size, slope=rng.uniform(0.8, 1.3))
    light = relief(heights, angle=rng.uniform(0, 7), strength=rng.uniform(0.05, 0.18))
    stains = soft_step(noise(rng, size, slope=1.9), at=rng.uniform(0, 1.5), over=1)
    colour = varied(rng, pick(rng, WALLS))
    scene = blended(plain(size, colour), plain(size, scaled(colour, 0.8)), stains)
    return photo(rng, scene * light[..., None])


def concrete(rng: np.random.Generator, size: Size) -> Pixels:
    """Concrete with the joints and bolt holes of its formwork."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        panel = between(rng, 90, 320)
        panels = Courses.of(size, high=panel, wide=panel * rng.uniform(0.8, 2))
        tone = grain(rng, size, slope=1.4, spread=0.07) + noise(rng, size, slope=0.2) * 0.03
        tone = tone + panels.each(rng.normal(0, 0.05, panels.count))
        tone = tone * (1 - 0.3 * soft_step(-panels.inside(margin=1), at=0, over=2))
        reach = 0.2 * panel
        x = np.minimum(panels.across, panels.wide - panels.across) - reach
        y = np.minimum(panels.down, panels.high - panels.down) - reach
        hole = soft_step((0.022 * panel) - np.hypot(x, y), at=0, over=1.5)
        streaks = noise(rng, size, slope=1.2, stretch=(30, 1)) * 0.05
        tone = (tone + streaks) * (1 - 0.6 * hole)
        return coloured(varied(rng, (150, 148, 144)), tone)

    return photo(rng, tilted(rng, size, paint))


def stone_wall(rng: np.random.Generator, size: Size) -> Pixels:
    """Field stones of all shapes in mortar, or cobbles on the ground."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        spacing = between(rng, 16, 90)
        flat = rng.uniform(0.6, 1)
        cells = Cells.drawn(rng, size, spacing=spacing, jitter=rng.uniform(0.15, 0.45), flat=flat)
        rough = noise(rng, size, slope=1.1)
        edge = cells.to_edge() + (0.04 * spacing) * rough
        gap = rng.uniform(0.04, 0.09) * spacing
        stone = soft_step(edge, at=gap, over=max(0.1 * spacing, 1.5))
        domed = np.sqrt((edge / (0.5 * spacing)).clip(0, 1))
        shape = (domed * 0.25 * spacing + rough * 0.4).astype(np.float32)
        light = relief(shape, angle=rng.uniform(0, 7), strength=0.4)
        colour = varied(rng, pick(rng, palette("8e8880 a09484 7c7a78 9c8a74")))
        tone = cells.each(rng.normal(1, 0.15, cells.count)) + 0.06 * rough
        mortar = plain(size, scaled(colour, rng.uniform(0.4, 1)))
        return np.asarray(blended(mortar, coloured(colour, tone), stone) * light[..., None])

    return photo(rng, pick(rng, [tilted, lying])(rng, size, paint))


def pebbles(rng: np.random.Generator, size: Size) -> Pixels:
    """Gravel or pebbles, each a stone of its own colour."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        spacing = between(rng, 6, 50)
        cells = Cells.drawn(rng, size, spacing=spacing, jitter=0.4)
        edge = cells.to_edge()
        round_ = np.sqrt((edge / (0.45 * spacing)).clip(0, 1))
        shape = (round_ * 0.5 * spacing).astype(np.float32)
        light = relief(shape, angle=rng.uniform(0, 7), strength=0.35)
        base = np.asarray(varied(rng, pick(rng, palette("9a948c b0a08c 84868a"))))
        colours = base * rng.normal(1, 0.2, (cells.count, 1)) + rng.normal(0, 5, (cells.count, 3))
        gap = 0.35 + 0.65 * round_
        speckle = grain(rng, size, slope=0.6, spread=0.06)
        return np.asarray(cells.colours(colours.clip(15, 250)) * (gap * light * speckle)[..., None])

    return photo(rng, lying(rng, size, paint))


def roof(rng: np.random.Generator, size: Size) -> Pixels:
    """Roof tiles that overlap in rows."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        wide = between(rng, 12, 60)
        tiles = Courses.of(size, high=wide * rng.uniform(0.8, 1.3), wide=wide, shift=0.5)
        x = (tiles.across / tiles.wide - 0.5) * 2
        bulge = np.sqrt((1 - x * x).clip(0.02, 1))
        down = tiles.down / tiles.high
        lower = soft_step(down + 0.25 * (x * x), at=0.85, over=0.15)
        tone = tiles.each(rng.normal(1, 0.1, tiles.count)) * (0.55 + 0.45 * bulge + 0.25 * x)
        tone = tone * (1 - 0.5 * lower) * grain(rng, size, slope=1, spread=0.06)
        colour = varied(rng, pick(rng, palette("a4583e 8c4a38 6c6a6c b4785a")))
        return coloured(colour, tone)

    return photo(rng, tilted(rng, size, paint))


def wood(rng: np.random.Generator, size: Size) -> Pixels:
    """Planks with their grain."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        plank = between(rng, 30, 160)
        planks = Courses.of(size, high=plank, wide=plank * rng.uniform(5, 12), shift=0.37)
        bend = noise(rng, size, slope=2, stretch=(12, 1)) * rng.uniform(2, 7)
        offset = planks.each(rng.uniform(0, 60, planks.count))
        rings = np.sin(planks.down * (rng.uniform(6, 16) / plank) * 3 + bend + offset)
        fibre = noise(rng, size, slope=0.7, stretch=(1, 40))
        tone = 1 + 0.1 * rings + 0.07 * fibre + planks.each(rng.normal(0, 0.1, planks.count))
        joint = soft_step(planks.inside(margin=max(0.015 * plank, 0.6)), at=0, over=1.5)
        colour = varied(rng, pick(rng, palette("a47a4e 7c5434 c29c6c 8c8478 5c4230")))
        return coloured(colour, tone * (0.35 + 0.65 * joint))

    scene = tilted(rng, size, paint)
    return photo(rng, scene)


def weave(rng: np.random.Generator, size: Size) -> Pixels:
    """Woven cloth in folds, plain or checked."""

    def paint(rng: np.random.Generator, size: Size) -> Scene:
        thread = between(rng, 4, 26)
        threads = Courses.of(size, high=thread, wide=thread)
        over = ((threads.row + threads.col) % 2).astype(np.float32)
        y, x = threads.down / thread - 0.5, threads.across / thread - 0.5
        bulge = np.where(over > 0, 1 - 2 * y * y - x * x, 1 - 2 * x * x - y * y)
        warp, weft = (varied(rng, pick(rng, FABRICS)) for _ in range(2))
        if rng.random() < 0.5:
            weft = varied(rng, warp)
        scene = blended(plain(size, warp), plain(size, weft), over)
        if rng.random() < 0.4:
            period = int(rng.integers(6, 20))
            band = (threads.col % period < period // 3) | (threads.row % period < period // 3)
            other = plain(size, varied(rng, pick(rng, FABRICS)))
            scene = blended(scene, other, 0.7 * band)
        folds = relief(noise(rng, size, slope=2.2) * 40, angle=rng.uniform(0, 7), strength=0.12)
        fluff = grain(rng, size, slope=0.3, spread=0.07)
        return np.asarray(scene * (bulge * folds * fluff)[..., None])

    return photo(rng, tilted(rng, size, paint))
