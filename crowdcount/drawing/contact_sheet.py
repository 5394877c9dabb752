"""A contact sheet: annotated images side by side, with their heads and blocks drawn on them."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import cv2
import numpy as np
from jaxtyping import Float64, Int64, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import KDTree

from crowdcount.core.bins import Bins, fine_starts, format_range, middle_values
from crowdcount.core.blocks import heads_per_block
from crowdcount.core.image import Sample

LARGEST_NUMBER = 400
"""The most tiles of a sheet: more cannot be looked at."""

# From one head to as many as are counted, through orange and red.
_PALETTE = np.array([(255, 224, 84), (255, 150, 30), (232, 40, 44), (150, 0, 90)], dtype=np.float64)
_OPACITY = 0.55
_DOT = (0, 255, 255)
_FRAME = (255, 255, 255)
_SHADOW = (0, 0, 0)
_PAPER = (24, 24, 28)
_INK = (255, 255, 255)
_PALE = (176, 176, 184)

# A sheet is as wide as a good screen, unless its tiles would be larger or smaller than these sides.
_SHEET_WIDTH = 2560
_SIDES = (240, 1600)
_GAP = 16

# Radii in pixels: the smallest dot still covers the pixel in which its head lies, the largest is
# this part of a picture's longer side.
_SMALLEST_DOT = 1.6
_LARGEST_DOT = 1 / 300
_NEIGHBOURS = 3

# So large, at least, is the frame around a corrected block, however small the block is drawn.
_SMALLEST_FRAME = 9.0

# OpenCV takes fractions of a pixel as integers, in units of 2^-6.
_SHIFT = 6

_MOST_SWATCHES = 8
_FONTS = (14, 28)

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, kw_only=True)
class BlockColours:
    """What the colours of blocks mean, the same on all tiles of a sheet."""

    block: int
    """Block side r, in pixels of the images."""

    max_count: int
    """m: blocks that hold more heads are marked as corrected."""

    fullest: int
    """Heads of the fullest block on the sheet, which decides where the colours of counts end."""

    bins: Bins | None = None
    """Bins whose counts share a colour; None: each count has its own."""

    @property
    def top(self) -> int:
        """The count with the last colour, where each has its own; blocks above it have it too."""
        return max(min(self.max_count, self.fullest), 1)

    @property
    def classes(self) -> Bins:
        """The counts that share a colour; those of the first bin have none."""
        if self.bins is not None:
            return self.bins
        starts = fine_starts(self.top)
        return Bins(block=self.block, starts=starts, values=middle_values(starts))

    def table(self) -> UInt8[np.ndarray, "classes 3"]:
        """The colour of each class but the first."""
        number = len(self.classes.starts) - 1
        at = np.linspace(0, len(_PALETTE) - 1, number) if number > 1 else np.zeros(1)
        anchors = np.arange(len(_PALETTE))
        channels = [np.interp(at, anchors, _PALETTE[:, channel]) for channel in range(3)]
        return np.stack(channels, axis=1).round().astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where pictures go on a sheet: into boxes of one size, in rows."""

    columns: int
    width: int
    """Of a box, in pixels, as the height."""

    height: int

    @classmethod
    def of(cls, sizes: Sequence[tuple[int, int]]) -> "Layout":
        """A layout for images of these sizes ``(width, height)``, shaped like most of them.

        Raises:
            ValueError: If there are no images, or more than a sheet holds.
        """
        if not 1 <= len(sizes) <= LARGEST_NUMBER:
            raise ValueError(f"a sheet holds 1 to {LARGEST_NUMBER} images, got {len(sizes)}")
        columns = math.ceil(math.sqrt(len(sizes)))
        smallest, largest = _SIDES
        side = min(max(_SHEET_WIDTH // columns, smallest), largest)
        # A strip of pixels among ordinary images is drawn smaller, not given a box of its own.
        shape = min(max(median(height / width for width, height in sizes), 0.5), 1.5)
        return cls(columns=columns, width=side, height=round(side * shape))

    def fit(self, *, width: int, height: int) -> tuple[int, int]:
        """The size at which an image of ``width`` x ``height`` pixels fills its box."""
        scale = min(self.width / width, self.height / height)
        return max(round(width * scale), 1), max(round(height * scale), 1)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """An image on the sheet with what stands below it."""

    picture: UInt8[np.ndarray, "height width 3"]
    name: str
    caption: str


def plain_picture(
    sample: Sample, *, layout: Layout
) -> UInt8[np.ndarray, "picture_height picture_width 3"]:
    """An image alone, as large as its box."""
    height, width = sample.image.shape[:2]
    size = layout.fit(width=width, height=height)
    # Enlarged, a pixel stays a square: noise and the blocks of a JPEG are there to be seen.
    interpolation = cv2.INTER_AREA if size[0] < width else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(sample.image, size, interpolation=interpolation))


def picture(
    sample: Sample,
    *,
    layout: Layout,
    colours: BlockColours,
    counts: Int64[np.ndarray, "rows cols"] | None = None,
) -> UInt8[np.ndarray, "picture_height picture_width 3"]:
    """An image with its blocks and heads, as large as its box.

    The photograph loses its colours, so that every colour is of the annotation. Every head is a dot
    whose middle is where the head is; neither a block nor another dot hides it.

    Args:
        sample: What to draw.
        layout: How large.
        colours: What the colours of blocks mean.
        counts: Heads of each block; None: counted from the points.
    """
    height, width = sample.image.shape[:2]
    size = layout.fit(width=width, height=height)
    grey = cv2.resize(
        cv2.cvtColor(sample.image, cv2.COLOR_RGB2GRAY),
        size,
        interpolation=cv2.INTER_AREA if size[0] < width else cv2.INTER_CUBIC,
    )
    # A little darker, so that dots and frames stand out before a bright sky too.
    canvas = (grey * 0.85).round().astype(np.uint8)[..., None].repeat(3, axis=2)
    if counts is None:
        counts = heads_per_block(sample.points, height=height, width=width, block=colours.block)
    classes = np.digitize(counts, colours.classes.starts[1:])
    stretch = np.array(size) / (width, height)
    tinted = _tinted(canvas, classes, colours, size=(width, height))
    middles = sample.points * stretch
    radii = _radii(middles, largest=max(size) * _LARGEST_DOT)
    # Shadows first: they lie neither on a frame nor on a neighbour's dot.
    _draw_dots(tinted, middles, radii + 1, colour=_SHADOW)
    _frame_corrected(tinted, counts, colours, stretch=stretch)
    _draw_dots(tinted, middles, radii, colour=_DOT)
    cols, rows = np.minimum(middles.astype(np.int64), (size[0] - 1, size[1] - 1)).T
    tinted[rows, cols] = _DOT
    return tinted


def contact_sheet(
    tiles: Sequence[Tile], *, title: str, layout: Layout, colours: BlockColours
) -> bytes:
    """Put tiles into rows, a title above and a legend below them.

    Args:
        tiles: What to show.
        title: What the sheet shows; one line.
        layout: Where it goes.
        colours: What the colours of the pictures mean.

    Returns:
        A PNG file, the same for the same arguments.
    """
    starts = range(0, len(tiles), layout.columns)
    size = min(max(layout.width // 32, _FONTS[0]), _FONTS[1])
    rows = [_row(tiles[at : at + layout.columns], layout, size=size) for at in starts]
    width = rows[0].width
    size = max(size, width // 100)
    parts = [_title(title, width=width, size=size), *rows, _legend(colours, size=size)]
    sheet = Image.new(
        "RGB", (max(part.width for part in parts), sum(part.height for part in parts)), _PAPER
    )
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    stream = io.BytesIO()
    sheet.save(stream, format="PNG")
    return stream.getvalue()


def _tinted(
    canvas: UInt8[np.ndarray, "height width 3"],
    classes: Int64[np.ndarray, "rows cols"],
    colours: BlockColours,
    *,
    size: tuple[int, int],
) -> UInt8[np.ndarray, "height width 3"]:
    """The canvas with a colour over every block above the first class; ``size`` is the image's."""
    height, width = canvas.shape[:2]
    col_of = _block_of(width, original=size[0], block=colours.block)
    row_of = _block_of(height, original=size[1], block=colours.block)
    held = classes[row_of[:, None], col_of]
    tinted = canvas.copy()
    full = held > 0
    tinted[full] = _mixed(canvas[full], colours.table()[held[full] - 1])
    return tinted


def _mixed(
    below: UInt8[np.ndarray, "pixels 3"], colour: UInt8[np.ndarray, "pixels 3"]
) -> UInt8[np.ndarray, "pixels 3"]:
    return np.asarray((below * (1 - _OPACITY) + colour * _OPACITY).round().astype(np.uint8))


def _block_of(side: int, *, original: int, block: int) -> Int64[np.ndarray, " side"]:
    """The block along one axis in which the centre of each pixel of a picture lies."""
    # (k + 1/2) * original / side, floored, in integers.
    return (2 * np.arange(side, dtype=np.int64) + 1) * original // (2 * side) // block


def _frame_corrected(
    canvas: UInt8[np.ndarray, "height width 3"],
    blocks: Int64[np.ndarray, "rows cols"],
    colours: BlockColours,
    *,
    stretch: Float64[np.ndarray, "2"],
) -> None:
    """Draw a frame around every block that holds more heads than can be observed."""
    above = np.argwhere(blocks > colours.max_count)[:, ::-1]
    half = np.maximum(colours.block * stretch, _SMALLEST_FRAME) / 2
    middles = (above + 0.5) * colours.block * stretch
    for colour, thickness in ((_SHADOW, 4), (_FRAME, 2)):
        for middle in middles:
            first, last = (_fixed(middle - half), _fixed(middle + half))
            cv2.rectangle(canvas, first, last, colour, thickness, cv2.LINE_AA, _SHIFT)


def _radii(
    points: Float64[np.ndarray, "heads 2"], *, largest: float
) -> Float64[np.ndarray, " heads"]:
    """How large the dot of each head may be to be told from its neighbours."""
    if len(points) == 0:
        return np.zeros(0)
    # Of one who has fewer neighbours than are asked for, those that are missing are far away.
    distances, _ = KDTree(points).query(points, k=range(2, _NEIGHBOURS + 2))
    spacing = np.minimum(distances, 1e6).mean(axis=1)
    return np.asarray((spacing / 4).clip(_SMALLEST_DOT, max(largest, _SMALLEST_DOT)))


def _draw_dots(
    canvas: UInt8[np.ndarray, "height width 3"],
    points: Float64[np.ndarray, "heads 2"],
    radii: Float64[np.ndarray, " heads"],
    *,
    colour: tuple[int, int, int],
) -> None:
    for point, radius in zip(points, radii, strict=True):
        reach = round(radius * 2**_SHIFT)
        cv2.circle(canvas, _fixed(point), reach, colour, -1, cv2.LINE_AA, _SHIFT)


def _fixed(point: Float64[np.ndarray, "2"]) -> tuple[int, int]:
    """A point for OpenCV, to which the middle of the first pixel, not its corner, is 0."""
    x, y = ((point - 0.5) * 2**_SHIFT).round().astype(int).tolist()
    return x, y


def _row(tiles: Sequence[Tile], layout: Layout, *, size: int) -> Image.Image:
    """Tiles side by side, as high as the highest; each picture rests on its caption."""
    font = ImageFont.load_default(size=size)
    high = max(tile.picture.shape[0] for tile in tiles)
    step = layout.width + _GAP
    strip = Image.new("RGB", (layout.columns * step + _GAP, high + 3 * size + _GAP), _PAPER)
    draw = ImageDraw.Draw(strip)
    for column, tile in enumerate(tiles):
        left = _GAP + column * step
        height, width = tile.picture.shape[:2]
        strip.paste(
            Image.fromarray(tile.picture), (left + (layout.width - width) // 2, high - height)
        )
        middle = left + layout.width // 2
        for line, (text, ink) in enumerate(((tile.name, _INK), (tile.caption, _PALE))):
            shown = shortened(text, width=layout.width, font=font)
            at = (middle, high + size // 3 + round(1.3 * line * size))
            draw.text(at, shown, fill=ink, font=font, anchor="ma")
    return strip


def _title(text: str, *, width: int, size: int) -> Image.Image:
    font = ImageFont.load_default(size=size)
    strip = Image.new("RGB", (width, 2 * size + _GAP), _PAPER)
    shown = shortened(text, width=width - 2 * _GAP, font=font)
    ImageDraw.Draw(strip).text((_GAP, size + _GAP // 2), shown, fill=_INK, font=font, anchor="lm")
    return strip


def _legend(colours: BlockColours, *, size: int) -> Image.Image:
    """What dots, colours and frames mean, in one line."""
    font = ImageFont.load_default(size=size)
    items: list[tuple[Image.Image, str]] = [(_dot_sign(size), "head")]
    items += _swatches(colours, size=size)
    items[-1] = (items[-1][0], f"{items[-1][1]} heads in a block of {colours.block} pixels")
    limit = colours.max_count
    if colours.fullest > limit:
        items.append((_frame_sign(colours, size), f"more than {limit}: corrected to {limit}"))
    widths = [sign.width + size // 2 + math.ceil(font.getlength(text)) for sign, text in items]
    strip = Image.new("RGB", (sum(widths) + len(items) * size + 2 * _GAP, 2 * size + _GAP), _PAPER)
    draw = ImageDraw.Draw(strip)
    left, middle = _GAP, strip.height // 2
    for (sign, text), wide in zip(items, widths, strict=True):
        strip.paste(sign, (left, middle - sign.height // 2))
        at = (left + sign.width + size // 2, middle)
        draw.text(at, text, fill=_INK, font=font, anchor="lm")
        left += wide + size
    return strip


def _swatches(colours: BlockColours, *, size: int) -> list[tuple[Image.Image, str]]:
    """The colours of some classes, the first and the last among them, as over a middle grey."""
    table = colours.table()
    number = len(table)
    shown = np.linspace(1, number, min(number, _MOST_SWATCHES)).round().astype(int)
    mixed = _mixed(np.full((number, 3), 128, dtype=np.uint8), table)
    ranges = colours.classes.ranges
    swatches = []
    for index in dict.fromkeys(shown.tolist()):
        low, high = ranges[index]
        # No block of the sheet is fuller than the fullest, but a bin is open all the same.
        closed = high is None and colours.bins is None and colours.fullest <= low
        ink = tuple(mixed[index - 1].tolist())
        label = format_range(low, low if closed else high)
        swatches.append((Image.new("RGB", (size, size), ink), label))
    return swatches


def _dot_sign(size: int) -> Image.Image:
    sign = Image.new("RGB", (size, size), _PAPER)
    reach = size // 4
    middle = size / 2
    ImageDraw.Draw(sign).ellipse(
        [middle - reach, middle - reach, middle + reach, middle + reach], fill=_DOT
    )
    return sign


def _frame_sign(colours: BlockColours, size: int) -> Image.Image:
    grey = np.full((1, 3), 128, dtype=np.uint8)
    ink = _mixed(grey, colours.table()[-1:])[0]
    sign = np.full((size + 8, size + 8, 3), _PAPER, dtype=np.uint8)
    sign[4:-4, 4:-4] = ink
    first, last = _fixed(np.array([4.0, 4.0])), _fixed(np.array([4.0 + size, 4.0 + size]))
    cv2.rectangle(sign, first, last, _FRAME, 2, cv2.LINE_AA, _SHIFT)
    return Image.fromarray(sign)


def shortened(text: str, *, width: int, font: _Font) -> str:
    """Text on one line that is not wider than ``width``: its middle gives way to three dots.

    The ends of file names tell them apart more often than their middles do.
    """
    # A line break or another control character has no shape of its own.
    text = "".join(each if each.isprintable() else "?" for each in text)
    kept = len(text)
    shown = text
    while kept > 0 and font.getlength(shown) > width:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
    return shown
