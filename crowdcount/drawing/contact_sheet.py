"""A contact sheet: annotated images side by side, with their heads and blocks drawn on them."""

import io
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import KDTree

from crowdcount.core.bins import Bins, fine_starts, format_range, middle_values
from crowdcount.core.blocks import heads_per_block
from crowdcount.core.image import Sample, scaled_size
from crowdcount.drawing.heatmap import INK, PAPER, Font, block_of_pixels
from crowdcount.opencv import cv2

LARGEST_NUMBER = 400
"""Maximum number of tiles on a sheet."""

# Colours of blocks from one head to the most.
_PALETTE = np.array([(255, 224, 84), (255, 150, 30), (232, 40, 44), (150, 0, 90)], dtype=np.float64)
_OPACITY = 0.55
_DOT = (0, 255, 255)
_FRAME = (255, 255, 255)
_SHADOW = (0, 0, 0)
_PALE = (176, 176, 184)

# A sheet is as wide as a good screen, unless its tiles would be larger or smaller than these sides.
_SHEET_WIDTH = 2560
_SIDES = (240, 1600)
_GAP = 16

# Radius in pixels of the smallest dot, which still covers the pixel of its head; radius of the
# largest as a share of the longer side of a picture.
_SMALLEST_DOT = 1.6
_LARGEST_DOT = 1 / 300
_NEIGHBOURS = 3

# Smallest frame around a corrected block, however small the block is drawn.
_SMALLEST_FRAME = 9.0

# OpenCV takes fractions of a pixel as integers, in units of 2^-6.
_SHIFT = 6

_MOST_SWATCHES = 8
_FONTS = (14, 28)


@dataclass(frozen=True, kw_only=True)
class BlockColours:
    """Colours of blocks by their heads, the same on all tiles of a sheet."""

    block: int
    """Block side r, in pixels of the images."""

    max_count: int
    """m: blocks that hold more heads are marked as corrected."""

    fullest: int
    """Heads of the fullest block on the sheet, which has the last colour."""

    bins: Bins | None = None
    """Bins whose counts share a colour; None: each count has a colour of its own."""

    @property
    def top(self) -> int:
        """The count with the last colour if each count has its own; fuller blocks share it."""
        return max(min(self.max_count, self.fullest), 1)

    @property
    def classes(self) -> Bins:
        """The counts that share a colour; those of the first bin have none."""
        if self.bins is not None:
            return self.bins
        starts = fine_starts(self.top)
        return Bins(block=self.block, starts=starts, values=middle_values(starts))

    def table(self) -> UInt8[np.ndarray, "classes 3"]:
        """Return the colour of each class but the first."""
        number = len(self.classes.starts) - 1
        at = np.linspace(0, len(_PALETTE) - 1, number) if number > 1 else np.zeros(1)
        anchors = np.arange(len(_PALETTE))
        channels = [np.interp(at, anchors, _PALETTE[:, channel]) for channel in range(3)]
        return np.stack(channels, axis=1).round().astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Boxes of one size, in rows, into which pictures go."""

    columns: int
    width: int
    """Width of a box in pixels."""

    height: int
    """Height of a box in pixels."""

    @classmethod
    def of(cls, sizes: Sequence[tuple[int, int]]) -> "Layout":
        """Choose a layout for images of these sizes ``(width, height)``, shaped like most of them.

        Raises:
            ValueError: If there are no images, or more than ``LARGEST_NUMBER``.
        """
        if not 1 <= len(sizes) <= LARGEST_NUMBER:
            raise ValueError(f"a sheet holds 1 to {LARGEST_NUMBER} images, got {len(sizes)}")
        columns = math.ceil(math.sqrt(len(sizes)))
        smallest, largest = _SIDES
        side = min(max(_SHEET_WIDTH // columns, smallest), largest)
        # A narrow image among ordinary ones is drawn smaller and does not change the box.
        shape = min(max(median(height / width for width, height in sizes), 0.5), 1.5)
        return cls(columns=columns, width=side, height=round(side * shape))

    def fit(self, *, width: int, height: int) -> tuple[int, int]:
        """Return the size at which an image of ``width`` x ``height`` pixels fills its box."""
        scale = min(self.width / width, self.height / height)
        return scaled_size(width=width, height=height, scale=scale)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A picture on the sheet with the two lines below it."""

    picture: UInt8[np.ndarray, "height width 3"]
    name: str
    caption: str


def plain_picture(
    sample: Sample, *, layout: Layout
) -> UInt8[np.ndarray, "picture_height picture_width 3"]:
    """Resize an image to its box, without drawing on it."""
    height, width = sample.image.shape[:2]
    size = layout.fit(width=width, height=height)
    # An enlarged pixel stays a square, so that noise and the blocks of a JPEG stay visible.
    interpolation = cv2.INTER_AREA if size[0] < width else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(sample.image, size, interpolation=interpolation))


def picture(
    sample: Sample,
    *,
    layout: Layout,
    colours: BlockColours,
    counts: Int64[np.ndarray, "rows cols"] | None = None,
) -> UInt8[np.ndarray, "picture_height picture_width 3"]:
    """Draw an image with its blocks and heads, as large as its box.

    The photograph is drawn in grey, so that only the annotation is in colour. Every head is a dot,
    whose centre neither a block nor another dot hides.

    Args:
        sample: Image and heads.
        layout: Boxes of the sheet.
        colours: Colours of the blocks.
        counts: Heads of each block; None: counted from the points.
    """
    height, width = sample.image.shape[:2]
    size = layout.fit(width=width, height=height)
    interpolation = cv2.INTER_AREA if size[0] < width else cv2.INTER_CUBIC
    grey = cv2.resize(
        cv2.cvtColor(sample.image, cv2.COLOR_RGB2GRAY), size, interpolation=interpolation
    )
    # A little darker, so that dots and frames stand out before a bright sky too.
    canvas = (grey * 0.85).round().astype(np.uint8)[..., None].repeat(3, axis=2)
    if counts is None:
        counts = heads_per_block(sample.points, height=height, width=width, block=colours.block)
    cols, rows = (
        block_of_pixels(side, original=original, block=colours.block)
        for side, original in zip(size, (width, height), strict=True)
    )
    classes = np.digitize(counts, colours.classes.starts[1:])[rows[:, None], cols]
    coloured = classes > 0
    canvas[coloured] = _blended(canvas[coloured], colours.table()[classes[coloured] - 1])
    stretch = np.array(size) / (width, height)
    centres = sample.points * stretch
    radii = _radii(centres, largest=max(size) * _LARGEST_DOT)
    # Shadows first, so that they cover neither a frame nor another dot.
    _draw_dots(canvas, centres, radii + 1, colour=_SHADOW)
    _frame_corrected(canvas, counts, colours, stretch=stretch)
    _draw_dots(canvas, centres, radii, colour=_DOT)
    columns, lines = np.minimum(centres.astype(np.int64), (size[0] - 1, size[1] - 1)).T
    canvas[lines, columns] = _DOT
    return canvas


def contact_sheet(
    tiles: Sequence[Tile], *, title: str, layout: Layout, colours: BlockColours
) -> bytes:
    """Put tiles into rows, with a title above and a legend below.

    Args:
        tiles: The pictures with their captions.
        title: One line.
        layout: Boxes of the sheet.
        colours: Colours of the blocks, for the legend.

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
        "RGB", (max(part.width for part in parts), sum(part.height for part in parts)), PAPER
    )
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    stream = io.BytesIO()
    sheet.save(stream, format="PNG")
    return stream.getvalue()


def _blended(
    below: UInt8[np.ndarray, "pixels 3"], colour: UInt8[np.ndarray, "pixels 3"]
) -> UInt8[np.ndarray, "pixels 3"]:
    return np.asarray((below * (1 - _OPACITY) + colour * _OPACITY).round().astype(np.uint8))


def _frame_corrected(
    canvas: UInt8[np.ndarray, "height width 3"],
    counts: Int64[np.ndarray, "rows cols"],
    colours: BlockColours,
    *,
    stretch: Float64[np.ndarray, "2"],
) -> None:
    """Draw a frame around every block that holds more heads than can be observed."""
    corrected = np.argwhere(counts > colours.max_count)[:, ::-1]
    half = np.maximum(colours.block * stretch, _SMALLEST_FRAME) / 2
    centres = (corrected + 0.5) * colours.block * stretch
    for colour, thickness in ((_SHADOW, 4), (_FRAME, 2)):
        for centre in centres:
            first, last = _fixed(centre - half), _fixed(centre + half)
            cv2.rectangle(canvas, first, last, colour, thickness, cv2.LINE_AA, _SHIFT)


def _radii(
    points: Float64[np.ndarray, "heads 2"], *, largest: float
) -> Float64[np.ndarray, " heads"]:
    """Choose radii that keep the dots of neighbouring heads apart."""
    if len(points) == 0:
        return np.zeros(0)
    # Where a head has fewer neighbours than asked for, the missing ones are infinitely far away.
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
    """Convert a point for OpenCV, whose origin is the centre of the first pixel."""
    x, y = ((point - 0.5) * 2**_SHIFT).round().astype(int).tolist()
    return x, y


def _row(tiles: Sequence[Tile], layout: Layout, *, size: int) -> Image.Image:
    """Draw tiles side by side, as high as the highest; each picture stands on its caption."""
    font = ImageFont.load_default(size=size)
    tallest = max(tile.picture.shape[0] for tile in tiles)
    step = layout.width + _GAP
    strip = Image.new("RGB", (layout.columns * step + _GAP, tallest + 3 * size + _GAP), PAPER)
    draw = ImageDraw.Draw(strip)
    for column, tile in enumerate(tiles):
        left = _GAP + column * step
        height, width = tile.picture.shape[:2]
        at = (left + (layout.width - width) // 2, tallest - height)
        strip.paste(Image.fromarray(tile.picture), at)
        for line, (text, ink) in enumerate(((tile.name, INK), (tile.caption, _PALE))):
            text = fit_text(text, width=layout.width, font=font)
            at = (left + layout.width // 2, tallest + size // 3 + round(1.3 * line * size))
            draw.text(at, text, fill=ink, font=font, anchor="ma")
    return strip


def _title(text: str, *, width: int, size: int) -> Image.Image:
    font = ImageFont.load_default(size=size)
    strip = Image.new("RGB", (width, 2 * size + _GAP), PAPER)
    text = fit_text(text, width=width - 2 * _GAP, font=font)
    ImageDraw.Draw(strip).text((_GAP, size + _GAP // 2), text, fill=INK, font=font, anchor="lm")
    return strip


def _legend(colours: BlockColours, *, size: int) -> Image.Image:
    """Explain dots, colours and frames in one line."""
    font = ImageFont.load_default(size=size)
    dot = Image.new("RGB", (size, size), PAPER)
    first, last = size / 2 - size // 4, size / 2 + size // 4
    ImageDraw.Draw(dot).ellipse([first, first, last, last], fill=_DOT)
    swatches = _swatches(colours, size=size)
    sign, text = swatches[-1]
    swatches[-1] = (sign, f"{text} heads in a block of {colours.block} pixels")
    items = [(dot, "head"), *swatches]
    limit = colours.max_count
    if colours.fullest > limit:
        framed = np.full((size + 8, size + 8, 3), PAPER, dtype=np.uint8)
        framed[4:-4, 4:-4] = np.asarray(sign)
        top, bottom = (_fixed(np.array([side, side])) for side in (4.0, 4.0 + size))
        cv2.rectangle(framed, top, bottom, _FRAME, 2, cv2.LINE_AA, _SHIFT)
        items.append((Image.fromarray(framed), f"more than {limit}: corrected to {limit}"))
    widths = [sign.width + size // 2 + math.ceil(font.getlength(text)) for sign, text in items]
    strip = Image.new("RGB", (sum(widths) + len(items) * size + 2 * _GAP, 2 * size + _GAP), PAPER)
    draw = ImageDraw.Draw(strip)
    left, middle = _GAP, strip.height // 2
    for (sign, text), width in zip(items, widths, strict=True):
        strip.paste(sign, (left, middle - sign.height // 2))
        at = (left + sign.width + size // 2, middle)
        draw.text(at, text, fill=INK, font=font, anchor="lm")
        left += width + size
    return strip


def _swatches(colours: BlockColours, *, size: int) -> list[tuple[Image.Image, str]]:
    """Draw the colours of some classes over a middle grey, the first and the last among them."""
    table = colours.table()
    number = len(table)
    indices = np.linspace(1, number, min(number, _MOST_SWATCHES)).round().astype(int)
    blended = _blended(np.full((number, 3), 128, dtype=np.uint8), table)
    swatches = []
    for index in dict.fromkeys(indices.tolist()):
        low, high = colours.classes.ranges[index]
        # Where each count has a colour, the last one is no open class if no block is fuller.
        closed = high is None and colours.bins is None and colours.fullest <= low
        ink = tuple(blended[index - 1].tolist())
        label = format_range(low, low if closed else high)
        swatches.append((Image.new("RGB", (size, size), ink), label))
    return swatches


def fit_text(text: str, *, width: int, font: Font) -> str:
    """Fit text on one line of at most ``width`` pixels by cutting its middle out.

    The ends of file names differ more often than their middles.
    """
    # A line break or another control character has no glyph.
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if font.getlength(text) <= width:
        return text

    def cut(length: int) -> str:
        return f"{text[: (length + 1) // 2]}...{text[len(text) - length // 2 :]}"

    fitting = bisect_right(
        range(len(text)), float(width), key=lambda length: font.getlength(cut(length))
    )
    return cut(max(fitting - 1, 0))
