"""Scenes without people: camera, light, colours, ground and backdrop."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

from crowdcount.opencv import cv2

# The run-time type check of the tests does not accept an int for a float.
Number: TypeAlias = int | float
Colour: TypeAlias = tuple[Number, Number, Number]
Place: TypeAlias = tuple[Number, Number]
Pixels: TypeAlias = UInt8[np.ndarray, "height width 3"]
Texture: TypeAlias = UInt8[np.ndarray, "side side 3"]
Option = TypeVar("Option")


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A level pinhole camera above flat ground: projects metres to pixels.

    ``width``, ``height`` and the focal length ``focal`` are in pixels; ``horizon`` is a row,
    negative above the image. The camera is ``up`` metres above the ground, and people stand
    ``nearest`` to ``farthest`` metres away.
    """

    width: int
    height: int
    horizon: float
    up: float
    focal: float
    nearest: float
    farthest: float

    def scale(self, depth: float) -> float:
        """Return pixels per metre at ``depth`` metres."""
        return self.focal / depth

    def project(self, x: Number, depth: float, up: Number = 0) -> Place:
        """Return the pixel ``(x, y)`` of a point ``x`` m right, ``depth`` m away, ``up`` m high."""
        scale = self.scale(depth)
        return self.width / 2 + x * scale, self.horizon + (self.up - up) * scale

    def half_view(self, depth: float) -> float:
        """Return half the width of the view, in metres, at ``depth`` metres."""
        return self.width / 2 / self.scale(depth)


@dataclass(frozen=True, kw_only=True)
class Light:
    """Lighting of a scene, and the faults of lens and sensor.

    A shadow of one metre reaches ``sun`` metres to the right and away, and takes the fraction
    ``shade`` of the light. ``gains`` (exposure and white balance) multiply the channels. ``haze``
    is the fraction of the haze's colour in the distance, ``slope`` the change of brightness over
    half the width and half the height, ``vignette`` its loss in the corners. ``blur`` is the
    standard deviation of the lens blur in pixels, ``noise`` of the sensor noise in grey levels.
    """

    sun: Place
    shade: float
    gains: Colour
    haze: float
    slope: Place
    vignette: float
    blur: float
    noise: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Light":
        """Draw a light between bright noon and dull evening."""
        exposure, warmth = rng.uniform(0.75, 1.15), rng.normal(0, 0.06)
        sunny = rng.random() < 0.6
        return cls(
            sun=(rng.uniform(-1.1, 1.1), rng.uniform(-0.4, 0.6)) if sunny else (0.08, -0.04),
            shade=rng.uniform(0.35, 0.55) if sunny else rng.uniform(0.15, 0.3),
            gains=(exposure * (1 + warmth), exposure, exposure * (1 - warmth)),
            haze=rng.uniform(0.05, 0.4),
            slope=(rng.normal(0, 0.08), rng.normal(0, 0.08)),
            vignette=rng.uniform(0, 0.25),
            blur=rng.uniform(0.25, 0.7),
            noise=rng.uniform(1.5, 8),
        )

    def haze_at(self, camera: Camera, depth: float) -> float:
        """Return the fraction of the haze's colour at ``depth`` metres."""
        return self.haze * (1 - math.exp(-0.7 * depth / camera.farthest))


def pick(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    """Draw one option uniformly; much faster than ``rng.choice``."""
    return options[int(rng.random() * len(options))]


def palette(codes: str) -> list[Colour]:
    """Parse hexadecimal colours."""
    return [(code[0], code[1], code[2]) for code in map(bytes.fromhex, codes.split())]


def varied(rng: np.random.Generator, colour: Colour) -> Colour:
    """Draw a colour near ``colour``."""
    red, green, blue = (colour + rng.normal(0, 5, 3) + rng.normal(0, 9)).clip(8, 245).tolist()
    return red, green, blue


def scaled(colour: Colour, factor: float) -> Colour:
    """Multiply the brightness of a colour."""
    red, green, blue = colour
    return min(red * factor, 255.0), min(green * factor, 255.0), min(blue * factor, 255.0)


def mixed(colour: Colour, other: Colour, part: float) -> Colour:
    """Replace ``part`` of a colour, from 0 to 1, by ``other``."""
    (red, green, blue), keep = colour, 1 - part
    return (
        red * keep + other[0] * part,
        green * keep + other[1] * part,
        blue * keep + other[2] * part,
    )


HAZE: Colour = (205, 212, 220)
FABRICS = palette(
    "202126 3e3e44 787a7e deded4 c6bca8 243054 405c8c 78a0c8 96282a c43e36 2c5c42 6a744c d6b042 "
    "ce7c3e 784a78 ce8c9c 5c4230 468c8c"
)
WALLS = palette("b2947a c4b296 a4705a cec6b8 8c8682 b0a0a6")
GLASS: Colour = (78, 88, 101)


def cast_shadows(
    picture: Pixels, camera: Camera, light: Light, figures: Iterable[tuple[float, ...]]
) -> None:
    """Darken ``picture`` in place by the shadows of figures ``(x, depth, height, width)`` in m."""
    shadows = np.zeros(picture.shape[:2], np.uint8)
    for x, depth, up, wide in figures:
        tip = (x + light.sun[0] * up, max(depth + light.sun[1] * up, 0.5 * camera.nearest))
        ends = np.array([camera.project(x, depth), camera.project(*tip)]).round().astype(np.int32)
        thickness = max(round(0.8 * wide * camera.scale(depth)), 1)
        cv2.polylines(shadows, [ends], False, 255, thickness, cv2.LINE_AA)
    soft = cv2.GaussianBlur(shadows, (0, 0), 1.5).astype(np.float32)
    _blend(picture, (0, 0, 0), soft * np.float32(light.shade / 255))


def add_haze(picture: Pixels, camera: Camera, light: Light) -> None:
    """Blend ground and backdrop with the haze's colour by distance."""
    # Whatever rises above the ground's far end has the distance of that end.
    rows = np.arange(camera.height) + 0.5 - camera.horizon
    nearest_row = camera.up * camera.scale(4 * camera.farthest)
    depths = camera.up * camera.focal / np.maximum(rows, nearest_row)
    _blend(picture, HAZE, _by_row([light.haze_at(camera, away) for away in depths], camera.width))


def photograph(
    scene: UInt16[np.ndarray, "height width channels"], light: Light, rng: np.random.Generator
) -> Pixels:
    """Photograph the first three channels of a scene: brightness, colour, blur, noise."""
    height, width, _ = scene.shape
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    brightness = 1 + np.float32(light.slope[0]) * across + np.float32(light.slope[1]) * down
    brightness -= np.float32(light.vignette / 2) * (across**2 + down**2)
    grain = rng.standard_normal((height, width), np.float32) * np.float32(0.8 * light.noise)
    # Channel by channel is several times as fast as on interleaved pixels.
    channels = []
    for channel, gain in zip(cv2.split(scene), light.gains, strict=False):
        sharp = cv2.multiply(channel, brightness, scale=gain, dtype=cv2.CV_32F)
        # Colour noise is coarser than grey noise, because sensors interpolate colour.
        coarse = rng.standard_normal((-(-height // 2), -(-width // 2)), np.float32)
        coarse *= np.float32(0.5 * light.noise)
        noise = grain + cv2.resize(coarse, (width, height))
        exposed = cv2.GaussianBlur(sharp, (0, 0), light.blur)
        # OpenCV rounds and keeps the sum within 0 to 255.
        channels.append(cv2.add(exposed, noise, dtype=cv2.CV_8U))
    return np.asarray(cv2.merge(channels))


def _blend(picture: Pixels, colour: Colour, part: Float32[np.ndarray, "height width"]) -> None:
    """Replace the fraction ``part`` of each pixel by a colour."""
    plain = np.empty_like(picture)
    cv2.rectangle(plain, (0, 0), picture.shape[1::-1], colour, cv2.FILLED)
    cv2.blendLinear(picture, plain, 1 - part, part, picture)


def _by_row(values: Any, width: int) -> Float32[np.ndarray, "height width"]:
    """Repeat one value per row along the row."""
    return np.tile(np.asarray(values, np.float32)[:, None], width)


def _plaza(picture: Pixels, camera: Camera, rng: np.random.Generator) -> float:
    """Paint paving in front of a row of houses."""
    _houses(picture, camera, rng, depth=1.6 * camera.farthest)
    tone = varied(rng, pick(rng, palette("a8a094 969492 b8a68e 8c7a6e")))
    _ground(picture, camera, _paving(rng, tone))
    return math.inf


def _street(picture: Pixels, camera: Camera, rng: np.random.Generator) -> float:
    """Paint asphalt between two rows of houses."""
    _houses(picture, camera, rng, depth=3.5 * camera.farthest)
    half_width = rng.uniform(0.45, 0.8) * camera.half_view(camera.farthest)
    half_width = max(half_width, camera.half_view(camera.nearest), 2.5)
    # Grain and, more often than not, a broken white line.
    tone = varied(rng, pick(rng, palette("606164 706e6c 807a74")))
    asphalt = _speckled(rng, tone, grain=9, patches=6)
    if rng.random() < 0.7:
        asphalt[:150, 124:131] = 205
    _ground(picture, camera, asphalt)
    for side in (-1, 1):
        depth = 0.5 * camera.nearest
        while depth < 3.5 * camera.farthest:
            corner, wide = (side * (half_width + 0.8), depth), rng.uniform(5, 11)
            _front(picture, camera, rng, wide=wide, corner=corner, along=(0, 1))
            depth += wide
    return half_width


def _park(picture: Pixels, camera: Camera, rng: np.random.Generator) -> float:
    """Paint a meadow in front of two rows of trees, the nearer ones brighter."""
    depth = 1.8 * camera.farthest
    scale, leaves = camera.scale(depth), varied(rng, (70, 96, 58))
    for tone, up in ((0.7, 3.0), (0.95, 1.2)):
        for x in np.arange(-camera.half_view(depth), camera.half_view(depth) + 1, 1.3).tolist():
            middle, row = camera.project(x, depth, rng.normal(up, 0.5))
            colour, radius = scaled(leaves, tone * rng.uniform(0.85, 1.1)), rng.uniform(1.2, 2)
            centre = (round(middle), round(row))
            cv2.circle(picture, centre, round(radius * scale), colour, cv2.FILLED, cv2.LINE_AA)
    _ground(picture, camera, _grass(rng))
    return math.inf


def _stadium(picture: Pixels, camera: Camera, rng: np.random.Generator) -> float:
    """Paint a mown field in front of empty seats above advertisements."""
    depth = 1.5 * camera.farthest
    scale, ground = camera.scale(depth), camera.project(0, depth)[1]
    seat = varied(rng, pick(rng, FABRICS))
    _fill(picture, _box(0, ground - 9 * scale, camera.width, ground), (128, 130, 134))
    top = max(ground - 9 * scale, 0)
    for bottom in np.arange(ground - 1.3 * scale, top, -0.75 * scale).tolist():
        for left in np.arange(0, camera.width, 0.8 * scale).tolist():
            tone = scaled(seat, rng.uniform(0.8, 1.1))
            _fill(picture, _box(left, bottom - 0.45 * scale, left + 0.5 * scale, bottom), tone)
    for left in np.arange(0, camera.width, 6 * scale).tolist():
        _fill(picture, _box(left, ground - scale, left + 6 * scale, ground), pick(rng, FABRICS))
    grass = _grass(rng)
    grass[:128] = grass[:128] * 0.82
    _ground(picture, camera, grass)
    return math.inf


def _beach(picture: Pixels, camera: Camera, rng: np.random.Generator) -> float:
    """Paint sand, and the sea under the sky."""
    _ground(picture, camera, _speckled(rng, varied(rng, (206, 186, 150)), grain=9, patches=10))
    top, shore = camera.horizon, camera.project(0, 1.5 * camera.farthest)[1]
    for bottom, colour in ((shore + 3, (232, 234, 230)), (shore, varied(rng, (70, 120, 140)))):
        _fill(picture, _box(0, top, camera.width, bottom), colour)
    return math.inf


Backdrop: TypeAlias = Callable[[Pixels, Camera, np.random.Generator], float]

BACKDROPS: dict[str, Backdrop] = {
    "plaza": _plaza,
    "street": _street,
    "park": _park,
    "stadium": _stadium,
    "beach": _beach,
}
"""Each paints a backdrop and returns its half width in metres, where people can stand."""


def paint_sky(picture: Pixels, camera: Camera, rng: np.random.Generator) -> None:
    """Fill the picture with a sky: blue or grey above, white at the horizon, with clouds."""
    high = varied(rng, pick(rng, palette("6092ce 96aabe 78a0d2 c8aa96")))
    small, cover = rng.random((6, 8), np.float32), rng.uniform(0.3, 0.9)
    clouds = cv2.resize(small, (camera.width, camera.height), interpolation=cv2.INTER_CUBIC)
    cv2.rectangle(picture, (0, 0), (camera.width, camera.height), high, cv2.FILLED)
    down = _by_row(np.arange(camera.height) * (0.8 / max(camera.horizon, 1.0)), camera.width)
    _blend(picture, (236, 238, 240), (down + 1.2 * np.maximum(clouds - cover, 0)).clip(0, 1))


def _ground(picture: Pixels, camera: Camera, texture: Texture) -> None:
    """Tile the ground with a texture that covers 8 x 8 m."""
    first = max(math.ceil(camera.horizon), 0)
    metre, reach = texture.shape[0] / 8, camera.up * camera.focal
    # A pixel shows depth = up * focal / (y - horizon) and x = (column - middle) * depth / focal.
    to_texture = np.array(
        [
            [metre * camera.up, 0, metre * camera.up * (0.5 - camera.width / 2)],
            [0, 0, metre * reach],
            [0, 1, first + 0.5 - camera.horizon],
        ]
    )
    near = cv2.warpPerspective(
        texture,
        to_texture,
        (camera.width, camera.height - first),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )
    # A distant pixel covers much of the texture, so a camera sees the mean.
    rows = np.arange(first, camera.height) + 0.5 - camera.horizon
    blurred = 1 - (6 * rows * rows / (metre * reach)).clip(0, 1)
    red, green, blue, _ = cv2.mean(texture)
    _blend(near, (red, green, blue), _by_row(blurred, camera.width))
    picture[first:] = near


def _speckled(rng: np.random.Generator, tone: Colour, *, grain: Number, patches: Number) -> Texture:
    """Draw a plain texture with fine grain and broad patches, both in grey levels."""
    broad = rng.standard_normal((9, 9), np.float32) * np.float32(patches)
    broad[-1], broad[:, -1] = broad[0], broad[:, 0]
    spots = rng.standard_normal((256, 256), np.float32) * np.float32(grain)
    spots += cv2.resize(broad, (256, 256))
    shades = [(spots + np.float32(channel)).clip(0, 255).astype(np.uint8) for channel in tone]
    return np.asarray(cv2.merge(shades))


def _paving(rng: np.random.Generator, tone: Colour) -> Texture:
    """Draw slabs of slightly different tones with dark joints."""
    count = pick(rng, [4, 8, 16])
    slabs = rng.normal(0, 7, (count, count, 1))
    if rng.random() < 0.4:
        slabs[::2, ::2] -= 22
    side = 256 // count
    change = slabs.repeat(side, axis=0).repeat(side, axis=1)
    joint = np.arange(256) % side < 2
    change[joint] -= 22
    change[:, joint] -= 22
    texture = _speckled(rng, tone, grain=5, patches=5)
    return (texture + change).clip(0, 255).astype(np.uint8)


def _grass(rng: np.random.Generator) -> Texture:
    """Draw blades and patches of grass."""
    tone = varied(rng, pick(rng, palette("5c7c3a 4e7438 7c8448")))
    return _speckled(rng, tone, grain=15, patches=10)


def _fill(picture: Pixels, corners: Sequence[Place], colour: Colour) -> None:
    """Fill a convex polygon with antialiasing."""
    fixed = (np.asarray(corners) * 16).clip(-1e6, 1e6).round().astype(np.int32)
    cv2.fillConvexPoly(picture, fixed, colour, cv2.LINE_AA, 4)


def _box(left: Number, top: Number, right: Number, bottom: Number) -> list[Place]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _houses(picture: Pixels, camera: Camera, rng: np.random.Generator, *, depth: float) -> None:
    """Paint a row of fronts across the picture."""
    x, end = -camera.half_view(depth) - rng.uniform(0, 5), camera.half_view(depth)
    while x < end:
        wide = rng.uniform(7, 16)
        _front(picture, camera, rng, wide=wide, corner=(x, depth), along=(1, 0))
        x += wide


def _front(
    picture: Pixels,
    camera: Camera,
    rng: np.random.Generator,
    *,
    wide: float,
    corner: Place,
    along: Place,
) -> None:
    """Paint a front from ``corner`` in the direction ``along``, both ``(right, away)``."""
    storeys, wall = int(rng.integers(2, 6)), varied(rng, pick(rng, WALLS))

    def panel(left: Number, right: Number, low: Number, high: Number, colour: Colour) -> None:
        outline = [
            camera.project(corner[0] + on * along[0], corner[1] + on * along[1], up)
            for on, up in _box(left, high, right, low)
        ]
        _fill(picture, outline, colour)

    panel(0, wide, 0, 3.2 * storeys + 1, wall)
    panel(0, wide, 3.2 * storeys + 0.6, 3.2 * storeys + 1, scaled(wall, 0.65))
    for storey in range(storeys):
        low = 3.2 * storey + (1.0 if storey else 0.2)
        for left in np.arange(0.7, wide - 1.2, 2.2).tolist():
            glass = scaled(GLASS, rng.uniform(0.6, 1.3))
            panel(left, left + 1.1, low, 3.2 * storey + 2.6, glass)
    if rng.random() < 0.5:
        panel(0.3, wide - 0.3, 2.75, 3.3, pick(rng, FABRICS))
