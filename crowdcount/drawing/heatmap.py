"""A heatmap: block counts over the photograph, with their scale and the count."""

import math

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageDraw, ImageFont

from crowdcount.core.types import ImageCount
from crowdcount.opencv import cv2

PAPER = (24, 24, 28)
INK = (255, 255, 255)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Turbo without its darkest blue, which looks like shadow on a photograph.
_COLOURS = cv2.applyColorMap(
    np.linspace(30, 255, 256).astype(np.uint8)[:, None], cv2.COLORMAP_TURBO
)[:, 0, ::-1]

# The overlay grows opaque with the count, quickly at first: an empty block shows the photograph
# alone, and a third of a head is visible.
_OPACITY = 0.85 * np.sqrt(np.arange(256) / 255)

# Even in an empty scene the fullest block has a small count; it must not look like a crowd.
_SMALLEST_TOP = 0.1

_MIN_PICTURE = 320
_MIN_FONT = 14


def heatmap(
    image: UInt8[np.ndarray, "height width 3"], count: ImageCount
) -> UInt8[np.ndarray, "canvas_height canvas_width 3"]:
    """Draw heads per block over a photograph; below it the count and the scale of the colours.

    The photograph is drawn in grey, so that only the counts are in colour. A small one is enlarged
    by a whole factor, and centred if the text below is wider.

    Args:
        image: Upright RGB pixels that were counted.
        count: The count of this image.

    Raises:
        ValueError: If ``count`` belongs to an image of another size.
    """
    height, width = image.shape[:2]
    if (height, width) != (count.height, count.width):
        raise ValueError(
            f"the image is {width}x{height}, its count is of {count.width}x{count.height}"
        )
    ticks = scale_ticks(float(count.blocks.max()))
    levels = (count.blocks.numpy() / ticks[-1] * 255).round().clip(0, 255).astype(np.uint8)
    rows = block_of_pixels(height, original=count.working_height, block=count.block)
    cols = block_of_pixels(width, original=count.working_width, block=count.block)
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    picture = _overlay(grey, levels[rows[:, None], cols])
    enlarged = -(-_MIN_PICTURE // max(height, width))
    picture = picture.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    strip = _strip(count, ticks=ticks, width=picture.shape[1], height=picture.shape[0])
    canvas = Image.new("RGB", (strip.width, picture.shape[0] + strip.height), PAPER)
    canvas.paste(Image.fromarray(picture), ((strip.width - picture.shape[1]) // 2, 0))
    canvas.paste(strip, (0, picture.shape[0]))
    return np.array(canvas)


def scale_ticks(fullest: float) -> list[float]:
    """Return four to six round numbers from 0 up to at least ``fullest``, equally far apart.

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


def block_of_pixels(side: int, *, original: int, block: int) -> Int64[np.ndarray, " side"]:
    """Find the block along one axis that holds the centre of each pixel of a picture.

    Args:
        side: Pixels of the picture.
        original: Pixels of the image that is divided into blocks.
        block: Block side in pixels of that image.
    """
    # (k + 1/2) * original / side, floored, in integers.
    return (2 * np.arange(side, dtype=np.int64) + 1) * original // (2 * side) // block


def _overlay(
    grey: UInt8[np.ndarray, "height width"], levels: UInt8[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Blend each grey pixel with the colour of its level, 0 to 255."""
    # One table for all pairs: floats of a 24-megapixel photograph take gigabytes.
    photograph = (np.arange(256)[:, None] * (1 - _OPACITY))[..., None]
    table = (photograph + _OPACITY[:, None] * _COLOURS).round().astype(np.uint8)
    return np.asarray(table[grey, levels])


def _strip(count: ImageCount, *, ticks: list[float], width: int, height: int) -> Image.Image:
    """Draw caption and colour scale, side by side if the picture is wide enough, else stacked."""
    size = max(_MIN_FONT, round(math.sqrt(width * height) / 40))
    caption = _caption(f"{count.total:,.1f} people", size=size)
    scale = _scale(count, ticks=ticks, size=size)
    if caption.width + scale.width <= width:
        strip = Image.new("RGB", (width, max(caption.height, scale.height)), PAPER)
        strip.paste(caption, (0, (strip.height - caption.height) // 2))
        strip.paste(scale, (width - scale.width, (strip.height - scale.height) // 2))
        return strip
    width = max(width, caption.width, scale.width)
    strip = Image.new("RGB", (width, caption.height + scale.height - size), PAPER)
    strip.paste(caption, ((width - caption.width) // 2, 0))
    strip.paste(scale, ((width - scale.width) // 2, caption.height - size))
    return strip


def _caption(text: str, *, size: int) -> Image.Image:
    """Draw the count in large letters, with a margin of one letter."""
    font = ImageFont.load_default(size=2 * size)
    panel = Image.new("RGB", (math.ceil(font.getlength(text)) + 2 * size, 4 * size), PAPER)
    ImageDraw.Draw(panel).text((size, 2 * size), text, fill=INK, font=font, anchor="lm")
    return panel


def _scale(count: ImageCount, *, ticks: list[float], size: int) -> Image.Image:
    """Draw the colour bar with its ticks, in heads per block as large as on the photograph."""
    font = ImageFont.load_default(size=size)
    across, down = (f"{count.block / factor:.3g}" for factor in count.scale)
    label = f"heads per block of {across} x {down} pixels"
    number = math.ceil(max(font.getlength(f"{tick:g}") for tick in ticks))
    bar = max(math.ceil(font.getlength(label)), 16 * size, (number + size) * (len(ticks) - 1))
    # Half of the outermost numbers stands beside the bar.
    left, top, bottom = size + number // 2, size, 2 * size
    panel = Image.new("RGB", (bar + 2 * left, 5 * size), PAPER)
    levels = np.linspace(0, 255, bar).round().astype(np.uint8)[None]
    colours = _overlay(np.full_like(levels, 128), levels).repeat(bottom - top, axis=0)
    panel.paste(Image.fromarray(colours), (left, top))
    draw = ImageDraw.Draw(panel)
    for tick in ticks:
        x = left + round(tick / ticks[-1] * (bar - 1))
        draw.line([(x, bottom), (x, bottom + size // 4)], fill=INK, width=max(size // 12, 1))
        draw.text((x, bottom + size // 3), f"{tick:g}", fill=INK, font=font, anchor="ma")
    at = (left + bar // 2, bottom + 3 * size // 2)
    draw.text(at, label, fill=INK, font=font, anchor="ma")
    return panel
