"""People and objects, painted on a canvas that records whose head each pixel shows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, UInt16

from crowdcount.opencv import cv2
from crowdcount.scenes.scenery import (
    FABRICS,
    HAZE,
    Camera,
    Colour,
    Light,
    Number,
    Pixels,
    Place,
    mixed,
    palette,
    pick,
    scaled,
    varied,
)

SUPERSAMPLING = 2
"""Painted pixels along each side of an image pixel."""

SHIFT = 3
"""Fractional bits of OpenCV's fixed-point positions."""

HEAD_UP = 1.61
"""Metres from the ground to the head centre of a person 1.75 m tall."""

HEAD_WIDTH, HEAD_HEIGHT = 0.11, 0.14
"""Half axes in metres of that person's head, enlarged a little to be recognisable at 6 pixels."""

HEAD_RADIUS = math.sqrt(HEAD_WIDTH * HEAD_HEIGHT)
"""Metres: the radius of the circle with the same area."""

SKINS = palette("eec8b0 e2b696 cd9b78 ac7856 82563c 5c3c2c")
HAIRS = palette("1c1816 30221a 4e3422 704e30 b08a54 96928e 7a3a22")
TROUSERS = palette("1c1c20 2c303e 3a4a6c 5c6c8a 786c58 aca086 4a4a46")
SHOES = palette("1e1c1c 463428 d7d7d7")
STRAW: Colour = (214, 190, 140)
WHITE: Colour = (236, 236, 230)


class Canvas:
    """A supersampled picture with the number of a head beside each colour.

    One call paints colour and number, so they cannot disagree. There is no antialiasing, because
    numbers cannot be mixed; the reduction to image size smooths the colours.
    """

    def __init__(self, picture: Pixels) -> None:
        """Start from ``picture``, without heads."""
        height, width, _ = picture.shape
        numbered = cv2.cvtColor(picture.astype(np.uint16), cv2.COLOR_RGB2RGBA)
        numbered[..., 3] = 0
        size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
        self.pixels: UInt16[np.ndarray, "rows cols 4"] = cv2.resize(numbered, size)

    def reduced(self) -> UInt16[np.ndarray, "height width 4"]:
        """Return the picture at image size with smooth outlines; ignore its fourth channel."""
        rows, cols, _ = self.pixels.shape
        size = (cols // SUPERSAMPLING, rows // SUPERSAMPLING)
        return np.asarray(cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA))

    def owners(self) -> UInt16[np.ndarray, "height width"]:
        """Return the head's number in the upper left quarter of each image pixel, or 0."""
        return self.pixels[::SUPERSAMPLING, ::SUPERSAMPLING, 3].copy()


class Pen:
    """Paints a figure on a canvas, at positions ``(right, up)`` in metres from its foot.

    The figure stands ``x`` metres to the right and ``depth`` away; ``size`` scales all lengths.
    """

    def __init__(
        self, canvas: Canvas, camera: Camera, light: Light, *, x: float, depth: float, size: float
    ) -> None:
        self.scale = size * camera.scale(depth)
        """Pixels per metre."""

        self.lit = -math.copysign(1.0, light.sun[0])
        """Side of the light: -1 left, 1 right."""

        self.head = 0
        """Number that ovals write."""

        self._pixels = canvas.pixels
        self._foot = camera.project(x, depth)
        self._haze = light.haze_at(camera, depth)

    def polygon(self, corners: Sequence[Place], colour: Colour) -> None:
        """Fill a convex polygon."""
        fixed = self._fixed(corners).astype(np.int32)
        cv2.fillConvexPoly(self._pixels, fixed, self._ink(colour, 0), cv2.LINE_8, SHIFT)

    def band(self, low: Place, high: Place, colour: Colour) -> None:
        """Fill a trapezium with a level bottom and top, each a half width and a height."""
        (wide, bottom), (narrow, top) = low, high
        self.polygon([(-wide, bottom), (wide, bottom), (narrow, top), (-narrow, top)], colour)

    def oval(self, centre: Place, axes: Place, colour: Colour) -> None:
        """Fill an upright ellipse with half axes ``axes``."""
        (middle,) = self._fixed([centre]).round().astype(int).tolist()
        half = [round(axis * self.scale * (SUPERSAMPLING << SHIFT)) for axis in axes]
        ink = self._ink(colour, self.head)
        cv2.ellipse(self._pixels, middle, half, 0, 0, 360, ink, cv2.FILLED, cv2.LINE_8, SHIFT)

    def path(self, places: Sequence[Place], thickness: float, colour: Colour) -> None:
        """Draw a line with round ends."""
        fixed = [self._fixed(places).astype(np.int32)]
        thick = max(round(thickness * self.scale * SUPERSAMPLING), 1)
        cv2.polylines(self._pixels, fixed, False, self._ink(colour, 0), thick, cv2.LINE_8, SHIFT)

    def _fixed(self, places: Sequence[Place]) -> Float64[np.ndarray, "places 2"]:
        """Convert places to fixed-point pixels; OpenCV's zero is the centre of the first pixel."""
        x, y, unit, half = *self._foot, SUPERSAMPLING << SHIFT, 1 << SHIFT >> 1
        return np.array(
            [
                ((x + right * self.scale) * unit - half, (y - up * self.scale) * unit - half)
                for right, up in places
            ]
        )

    def _ink(self, colour: Colour, number: int) -> tuple[Number, Number, Number, int]:
        return (*mixed(colour, HAZE, self._haze), number)


@dataclass(frozen=True, kw_only=True)
class Person:
    """A person on the ground, ``x`` metres right of the middle and ``depth`` from the camera.

    ``size`` is the height as a factor of 1.75 m, ``turn`` the direction in radians (0 towards the
    camera, pi / 2 to the right), ``stride`` half the distance between the feet in metres.
    """

    x: float
    depth: float
    size: float
    turn: float
    stride: float
    skin: Colour
    hair: Colour
    top: Colour
    bottom: Colour
    shoes: Colour
    outfit: str
    """``trousers``, ``shorts``, ``skirt`` or ``coat``."""

    headwear: str
    """``none``, ``cap``, ``hood``, ``straw`` or ``bald``."""

    extra: str
    """``none``, ``backpack``, ``bag``, ``print`` or ``phone``."""

    @classmethod
    def random(cls, rng: np.random.Generator, *, x: float, depth: float, turn: float) -> "Person":
        """Draw a person."""
        return cls(
            x=x,
            depth=depth,
            size=min(max(rng.normal(0.98, 0.06), 0.75), 1.12),
            turn=turn,
            stride=rng.uniform(0.08, 0.3) if rng.random() < 0.6 else 0.03,
            skin=pick(rng, SKINS),
            hair=pick(rng, HAIRS),
            top=varied(rng, pick(rng, FABRICS)),
            bottom=varied(rng, pick(rng, TROUSERS)),
            shoes=pick(rng, SHOES),
            outfit=pick(rng, ["trousers"] * 5 + ["shorts", "skirt", "coat"]),
            headwear=pick(rng, ["none"] * 7 + ["cap", "cap", "hood", "straw", "bald"]),
            extra=pick(rng, ["none"] * 4 + ["backpack", "bag", "print", "phone"]),
        )

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width in metres, for the shadow."""
        return 1.75 * self.size, 0.42 * self.size

    def head_in(self, camera: Camera) -> Place:
        """Return the pixel position of the head's centre."""
        return camera.project(self.x, self.depth, HEAD_UP * self.size)

    def head_area(self, camera: Camera) -> float:
        """Return the area of the unhidden head in image pixels."""
        return math.pi * (HEAD_RADIUS * self.size * camera.scale(self.depth)) ** 2

    def paint(self, pen: Pen, number: int) -> None:
        """Paint from feet to hat; the pixels of the head get ``number``."""
        self._paint_legs(pen)
        self._paint_body(pen)
        pen.head = number
        self._paint_head(pen)

    def _paint_legs(self, pen: Pen) -> None:
        side = math.sin(self.turn)
        # Strides across the view spread the feet; strides towards the camera lift one.
        spread, lift = self.stride * side, 0.12 * self.stride * math.cos(self.turn)
        bare = self.outfit in ("shorts", "skirt")
        for sign, tone in ((-1, 0.78), (1, 1.0)):
            cloth = scaled(self.bottom, tone)
            hip = (sign * 0.08 * (1 - 0.5 * abs(side)), 0.88)
            foot = (hip[0] + sign * spread, 0.06 + max(sign * lift, 0))
            knee = ((hip[0] + foot[0]) / 2 + 0.03 * side, 0.47)
            pen.path([hip, knee, foot], 0.13, scaled(self.skin, tone) if bare else cloth)
            if bare:
                pen.path([hip, knee], 0.17, cloth)
            pen.oval((foot[0] + 0.05 * side, foot[1] - 0.02), (0.08, 0.05), self.shoes)

    def _paint_body(self, pen: Pen) -> None:
        side = math.sin(self.turn)
        shoulder, hip = 0.235 - 0.075 * abs(side), 0.17 - 0.03 * abs(side)
        self._paint_arm(pen, -pen.lit, shoulder, scaled(self.top, 0.72))
        if self.outfit == "skirt":
            pen.band((1.5 * hip, 0.52), (hip, 1.0), scaled(self.bottom, 0.9))
        elif self.outfit == "coat":
            pen.band((1.3 * hip, 0.55), (hip, 1.0), scaled(self.top, 0.9))
        outline = [(0.45 * shoulder, 1.46), (shoulder, 1.4), (1.03 * shoulder, 1.3)]
        outline += [(0.84 * shoulder, 1.08), (hip, 0.84)]
        mirrored = [(-right, up) for right, up in reversed(outline)]
        pen.polygon(outline + mirrored, self.top)
        dark = [(-pen.lit * right, up) for right, up in outline]
        pen.polygon([*dark, (0, 0.84), (0, 1.46)], scaled(self.top, 0.84))
        self._paint_arm(pen, pen.lit, shoulder, scaled(self.top, 0.93))
        if self.extra == "print":
            pen.band((0.9 * hip, 1.1), (0.9 * hip, 1.2), scaled(self.bottom, 1.6))
        elif self.extra == "backpack" and math.cos(self.turn) < 0:
            pen.oval((0, 1.17), (0.15, 0.23), scaled(self.shoes, 1.4))
        elif self.extra == "bag":
            pen.path([(-0.8 * shoulder, 1.4), (hip, 0.9)], 0.035, self.shoes)
            pen.oval((hip + 0.05, 0.86), (0.11, 0.12), self.shoes)
        pen.path([(0, 1.38), (0, 1.5)], 0.11, scaled(self.skin, 0.78))

    def _paint_arm(self, pen: Pen, sign: float, shoulder: float, sleeve: Colour) -> None:
        x, swing = sign * 0.92 * shoulder, sign * self.stride * math.sin(self.turn)
        elbow, hand = (x + 0.05 * sign - 0.3 * swing, 1.1), (x + 0.04 * sign - swing, 0.86)
        if self.extra == "phone" and sign > 0:
            elbow, hand = (x + 0.1, 1.15), (x - 0.06, 1.38)
        pen.path([(x, 1.35), elbow, hand], 0.1, sleeve)
        pen.oval(hand, (0.05, 0.055), self.skin)

    def _paint_head(self, pen: Pen) -> None:
        side, width, height = math.sin(self.turn), HEAD_WIDTH, HEAD_HEIGHT
        covers = {"cap": self.top, "hood": scaled(self.top, 0.8), "straw": STRAW, "bald": self.skin}
        cover = covers.get(self.headwear, self.hair)
        # The skull comes first, because its outline is the whole head.
        pen.oval((0, HEAD_UP), (width, height), scaled(cover, 0.75))
        bright = (0.15 * width * pen.lit, HEAD_UP + 0.1 * height)
        pen.oval(bright, (0.83 * width, 0.85 * height), cover)
        if math.cos(self.turn) > -0.3:
            self._paint_face(pen, (0.3 * width * side, HEAD_UP - 0.18 * height))
        if self.headwear in ("cap", "straw"):
            brim = 0.95 if self.headwear == "straw" else 0.8
            shadow = (0.15 * width * side, HEAD_UP + 0.32 * height)
            pen.oval(shadow, (brim * width, 0.16 * height), scaled(cover, 0.65))

    def _paint_face(self, pen: Pen, middle: Place) -> None:
        (x, up), width, height = middle, HEAD_WIDTH, HEAD_HEIGHT
        broad = 0.8 - 0.15 * abs(math.sin(self.turn))
        pen.oval(middle, (broad * width, 0.74 * height), scaled(self.skin, 0.86))
        bright = (x + 0.12 * width * pen.lit, up + 0.05 * height)
        pen.oval(bright, ((broad - 0.16) * width, 0.62 * height), self.skin)
        if pen.scale > 70:
            features = scaled(self.skin, 0.45)
            for sign in (-1, 1):
                eye = (x + 0.3 * width * sign, up + 0.12 * height)
                pen.oval(eye, (0.11 * width, 0.07 * height), features)
            pen.oval((x, up - 0.4 * height), (0.2 * width, 0.05 * height), features)


def _lamp(pen: Pen, colour: Colour) -> None:
    metal = scaled(colour, 0.35)
    pen.path([(0, 0), (0, 4.2)], 0.1, metal)
    pen.band((0.14, 0), (0.09, 0.6), metal)
    pen.oval((0, 4.35), (0.24, 0.26), WHITE)
    pen.oval((0, 4.62), (0.16, 0.06), metal)


def _bollard(pen: Pen, colour: Colour) -> None:
    pen.band((0.11, 0), (0.09, 0.8), scaled(colour, 0.5))
    pen.band((0.1, 0.56), (0.1, 0.68), WHITE)
    pen.oval((0, 0.8), (0.13, 0.13), scaled(colour, 0.65))


def _tree(pen: Pen, colour: Colour) -> None:
    pen.path([(0, 0), (0.05, 2.4)], 0.26, (82, 62, 46))
    leaves = mixed((64, 104, 48), colour, 0.18)
    crown = [(0.1, 3.2, 0.7), (-0.75, 3.0, 0.85), (0.8, 3.3, 0.8), (0, 3.9, 1.0), (-0.4, 3.6, 1.15)]
    for x, up, tone in crown:
        pen.oval((x, up), (0.85, 0.75), scaled(leaves, tone))
        pen.oval((x + 0.25 * pen.lit, up + 0.25), (0.45, 0.38), scaled(leaves, 1.15 * tone))


def _sign(pen: Pen, colour: Colour) -> None:
    pen.path([(0, 0), (0, 2.3)], 0.07, (110, 112, 114))
    pen.oval((0, 2.3), (0.3, 0.3), WHITE)
    pen.oval((0, 2.3), (0.25, 0.25), colour)


def _ball(pen: Pen, colour: Colour) -> None:
    pen.oval((0, 0.14), (0.14, 0.14), mixed(colour, WHITE, 0.5))
    pen.oval((0.04 * pen.lit, 0.18), (0.07, 0.07), WHITE)


Painter: TypeAlias = Callable[[Pen, Colour], None]

OBJECTS: dict[str, tuple[Painter, float, float]] = {
    "lamp": (_lamp, 4.4, 0.15),
    "bollard": (_bollard, 0.9, 0.22),
    "tree": (_tree, 4.2, 1.5),
    "sign": (_sign, 2.5, 0.12),
    "ball": (_ball, 0.28, 0.28),
}
"""Painter of each object, and height and width of its shadow's caster in metres."""


@dataclass(frozen=True, kw_only=True)
class Object:
    """An object on the ground; ``kind`` is a key of ``OBJECTS``, ``size`` a factor."""

    kind: str
    x: float
    depth: float
    size: float
    colour: Colour

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width in metres, for the shadow."""
        _, height, width = OBJECTS[self.kind]
        return height * self.size, width * self.size

    def paint(self, pen: Pen) -> None:
        """Paint the object; none of its pixels is a head."""
        OBJECTS[self.kind][0](pen, self.colour)
