"""A picture of where the heads are: block counts over the photograph, with scale and count."""

import math

import cv2
import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageDraw, ImageFont

from crowdcount.core.types import ImageCount

# Turbo without its darkest blue, which on a photograph looks like shadow.
_COLOURS = cv2.applyColorMap(
    np.linspace(30, 255, 256).astype(np.uint8)[:, None], cv2.COLORMAP_TURBO
)[:, 0, ::-1]

# The overlay grows opaque with the count, quickly at first: an empty block shows the photograph
# untouched, and a third of a head is seen.
_OPACITY = 0.85 * np.sqrt(np.arange(256) / 255)

# Even the fullest block of an empty scene has a trace of a head; it must not be drawn as a crowd.
_SMALLEST_TOP = 0.1

_PAPER = (24, 24, 28)
_INK = (255, 255, 255)
_MIN_PICTURE = 320
_MIN_FONT = 14

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def heatmap(
    image: UInt8[np.ndarray, "height width 3"], count: ImageCount
) -> UInt8[np.ndarray, "canvas_height canvas_width 3"]:
    """Draw heads per block over a photograph; below it the count and the scale of the colours.

    The photograph loses its colours, is enlarged by a whole factor where it is too small to look
    at, and is centred where the text below needs more width.

    Args:
        image: Upright RGB pixels, the ones that were counted.
        count: What the model saw in them.

    Raises:
        ValueError: If ``count`` belongs to an image of another size.
    """
    height, width = image.shape[:2]
    if (height, width) != (count.height, count.width):
        raise ValueError(
            f"the image is {width}x{height}, its count is of {count.width}x{count.height}"
        )
    ticks = scale_ticks(float(count.blocks.max()))
    # In grey, so that every colour in the picture is of the model and none of the scene.
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    picture = _overlay(grey, _levels(count, top=ticks[-1]))
    enlarged = -(-_MIN_PICTURE // max(height, width))
    picture = picture.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    strip = _strip(count, ticks=ticks, width=picture.shape[1], height=picture.shape[0])
    canvas = Image.new("RGB", (strip.width, picture.shape[0] + strip.height), _PAPER)
    canvas.paste(Image.fromarray(picture), ((strip.width - picture.shape[1]) // 2, 0))
    canvas.paste(strip, (0, picture.shape[0]))
    return np.array(canvas)


def scale_ticks(fullest: float) -> list[float]:
    """Round numbers from 0 up to at least ``fullest``, four to six of them, equally far apart.

    Args:
        fullest: The largest count of a block, in heads.
    """
    top = max(fullest, _SMALLEST_TOP)
    decade = 10.0 ** math.floor(math.log10(top))
    # A float's last digit must not cost a tick: 0.30000000000000004 / 0.1 is 3, not 4 steps.
    step = next(
        decade * factor
        for factor in (0.2, 0.25, 0.5, 1.0, 2.0, 2.5)
        if math.ceil(top / (decade * factor) - 1e-9) <= 5
    )
    steps = max(math.ceil(top / step - 1e-9), 1)
    return [round(step * tick, 12) for tick in range(steps + 1)]


def _levels(count: ImageCount, *, top: float) -> UInt8[np.ndarray, "height width"]:
    """The level of every original pixel: that of the block which holds its centre."""
    levels = (count.blocks.numpy() / top * 255).round().clip(0, 255).astype(np.uint8)
    row_of = _block_of(count.height, working=count.working_height, block=count.block)
    col_of = _block_of(count.width, working=count.working_width, block=count.block)
    return np.asarray(levels[row_of[:, None], col_of])


def _block_of(side: int, *, working: int, block: int) -> Int64[np.ndarray, " side"]:
    """The block along one axis in which the centre of each original pixel lies."""
    # (k + 1/2) * working / side, floored, in integers.
    return (2 * np.arange(side, dtype=np.int64) + 1) * working // (2 * side) // block


def _overlay(
    grey: UInt8[np.ndarray, "height width"], levels: UInt8[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Each grey pixel mixed with the colour of its level, 0 to 255."""
    # Through one table for all pairs: floats of a 24-megapixel photograph take gigabytes.
    photograph = (np.arange(256)[:, None] * (1 - _OPACITY))[..., None]
    table = (photograph + _OPACITY[:, None] * _COLOURS).round().astype(np.uint8)
    return np.asarray(table[grey, levels])


def _strip(count: ImageCount, *, ticks: list[float], width: int, height: int) -> Image.Image:
    """Caption and colour scale, side by side where a picture of this size has room, else stacked.

    At least as wide as the picture, and as wide as its text needs.
    """
    size = max(_MIN_FONT, round(math.sqrt(width * height) / 40))
    caption = _caption(f"{count.total:,.1f} people", size=size)
    scale = _scale(count, ticks=ticks, size=size)
    beside = caption.width + scale.width <= width
    if beside:
        strip = Image.new("RGB", (width, max(caption.height, scale.height)), _PAPER)
        strip.paste(caption, (0, (strip.height - caption.height) // 2))
        strip.paste(scale, (width - scale.width, (strip.height - scale.height) // 2))
    else:
        wide = max(width, caption.width, scale.width)
        strip = Image.new("RGB", (wide, caption.height + scale.height - size), _PAPER)
        strip.paste(caption, ((wide - caption.width) // 2, 0))
        strip.paste(scale, ((wide - scale.width) // 2, caption.height - size))
    return strip


def _caption(text: str, *, size: int) -> Image.Image:
    """The count in large letters, with a margin of one letter around it."""
    font = ImageFont.load_default(size=2 * size)
    panel = Image.new("RGB", (math.ceil(font.getlength(text)) + 2 * size, 4 * size), _PAPER)
    ImageDraw.Draw(panel).text((size, 2 * size), text, fill=_INK, font=font, anchor="lm")
    return panel


def _scale(count: ImageCount, *, ticks: list[float], size: int) -> Image.Image:
    """The bar of colours with its ticks, in heads per block as large as it is on the photograph."""
    font = ImageFont.load_default(size=size)
    across, down = (f"{count.block / factor:.3g}" for factor in count.scale)
    label = f"heads per block of {across} x {down} pixels"
    number = math.ceil(max(font.getlength(f"{tick:g}") for tick in ticks))
    bar = max(math.ceil(font.getlength(label)), 16 * size, (number + size) * (len(ticks) - 1))
    # The outermost numbers stand half beside the bar.
    left, top, bottom = size + number // 2, size, 2 * size
    panel = Image.new("RGB", (bar + 2 * left, 5 * size), _PAPER)
    panel.paste(_colour_bar(width=bar, height=bottom - top), (left, top))
    draw = ImageDraw.Draw(panel)
    for tick in ticks:
        x = left + round(tick / ticks[-1] * (bar - 1))
        draw.line([(x, bottom), (x, bottom + size // 4)], fill=_INK, width=max(size // 12, 1))
        _write(draw, (x, bottom + size // 3), f"{tick:g}", font=font)
    _write(draw, (left + bar // 2, bottom + 3 * size // 2), label, font=font)
    return panel


def _write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, *, font: _Font) -> None:
    """Write ``text`` below ``at``, centred on it."""
    draw.text(at, text, fill=_INK, font=font, anchor="ma")


def _colour_bar(*, width: int, height: int) -> Image.Image:
    """All levels from left to right as they look over a middle grey."""
    levels = np.linspace(0, 255, width).round().astype(np.uint8)[None]
    return Image.fromarray(_overlay(np.full_like(levels, 128), levels).repeat(height, axis=0))
