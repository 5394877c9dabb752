"""Augmentation of an image together with its points, so that every head stays on its pixel."""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64, UInt8
from pydantic import Field, model_validator

from crowdcount.core.image import Sample
from crowdcount.core.settings import OR_NONE, settings
from crowdcount.data.sources.images import upright_points
from crowdcount.errors import ConfigError
from crowdcount.opencv import cv2

# Distance of a pixel's last coordinate from the next pixel: a pixel is [k, k + 1), and the largest
# float below k + 1 would round to it in float32.
_LAST = 2.0**-10

# Weights of red, green and blue in grey (ITU-R BT.601, as in JPEG).
_LUMA = np.array([0.299, 0.587, 0.114])

# Defaults of the settings in the wide and in the published chain. A step that is off has the
# strength of the wide chain.
_DEFAULTS: dict[str, tuple[Any, Any]] = {
    "zoom_probability": (0.7, 1.0),
    "scale_min": (0.5, 0.5),
    "scale_max": (2.0, 1.0),  # published: a crop is cut with 1 to 2 times its final side
    "scale_draw": ("zoom", "side"),
    "place_draw": ("corner", "corner"),
    "flip_probability": (0.5, 0.5),
    "colour_probability": (0.8, 0.2),
    "brightness": (0.3, 0.1),
    "contrast": (0.3, 0.1),
    "saturation": (0.3, 0.1),
    "hue": (10.0, 0.0),
    "grey_probability": (0.1, 0.0),
    "blur_probability": (0.2, 0.2),
    "blur_sigma": (1.2, 1.4),  # published: the standard deviation of a box of 5 pixels, by axis
    "noise_probability": (0.2, 0.0),
    "noise_sigma": (10.0, 10.0),
    "salt_pepper_probability": (0.0, 0.5),
    "salt_pepper": (0.001, 0.001),
    "jpeg_probability": (0.2, 0.0),
    "jpeg_quality": (40, 40),
}

CHAINS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "wide": MappingProxyType({name: wide for name, (wide, _) in _DEFAULTS.items()}),
        "published": MappingProxyType({name: value for name, (_, value) in _DEFAULTS.items()}),
    }
)
"""Defaults of all settings. ``wide`` is ours; ``published`` is that of CLIP-EBC (Ma et al.,
https://arxiv.org/abs/2403.09281), with a blur in both directions."""

# Stands for "as the chain has it" until resolved(); typed Any because no resolved setting is None.
_UNSET: Any = None

_Probability = Annotated[float, Field(ge=0, le=1), OR_NONE]
_Spread = Annotated[float, Field(gt=0, le=100), OR_NONE]
_Factor = Annotated[float, Field(gt=0, allow_inf_nan=False), OR_NONE]


@settings("augment")
class AugmentConfig:
    """Settings of the random changes to training images; the chain fills in what is not given."""

    chain: Literal["wide", "published"] = "wide"
    """Key of ``CHAINS``, which holds the defaults of all other settings."""

    zoom_probability: _Probability = _UNSET
    """How often an image is zoomed. Other crops keep the pixels of their image, as most counted
    images do; a network can distinguish them from resampled ones."""

    scale_min: _Factor = _UNSET
    """Smallest factor by which the content of an image is zoomed."""

    scale_max: _Factor = _UNSET
    """Largest factor by which the content of an image is zoomed."""

    scale_draw: Annotated[Literal["zoom", "side"], OR_NONE] = _UNSET
    """Quantity that is drawn uniformly: ``zoom``, the logarithm of the factor; ``side``, the side
    of the square that is cut, so that small heads are more frequent."""

    place_draw: Annotated[Literal["centre", "corner"], OR_NONE] = _UNSET
    """How crops are placed. ``corner``: the corner is uniform wherever the crop fits, so that
    hardly a crop has the outermost rows and columns of its image. ``centre``: the centre is
    uniform, and the crop is pushed inside, so that they are in half as many crops as others (in a
    third where the image is twice as large as the crop). Crowds are often densest at the upper
    edge."""

    flip_probability: _Probability = _UNSET
    """How often left and right are exchanged."""

    colour_probability: _Probability = _UNSET
    """How often brightness, contrast, saturation and hue change."""

    brightness: _Probability = _UNSET
    """Pixels are multiplied by a factor from 1 - b to 1 + b."""

    contrast: _Probability = _UNSET
    """Distances from the mean grey are multiplied by a factor from 1 - c to 1 + c."""

    saturation: _Probability = _UNSET
    """Distances of a pixel from its own grey are multiplied by a factor from 1 - s to 1 + s."""

    hue: Annotated[float, Field(ge=0, le=180), OR_NONE] = _UNSET
    """Largest rotation of the colours around the grey axis, in degrees."""

    grey_probability: _Probability = _UNSET
    """How often an image loses its colour: crowd data sets hold photographs without any."""

    blur_probability: _Probability = _UNSET
    """How often an image is blurred."""

    blur_sigma: _Spread = _UNSET
    """Largest standard deviation of the Gaussian blur, in pixels of the crop. A blur is turned off
    by its probability."""

    noise_probability: _Probability = _UNSET
    """How often noise is added."""

    noise_sigma: _Spread = _UNSET
    """Largest standard deviation of the Gaussian noise, in grey levels of 0 to 255."""

    salt_pepper_probability: _Probability = _UNSET
    """How often single values are replaced."""

    salt_pepper: Annotated[float, Field(gt=0, le=0.5), OR_NONE] = _UNSET
    """Share of the values, three for each pixel, that become 255; as many become 0."""

    jpeg_probability: _Probability = _UNSET
    """How often an image is compressed once more."""

    jpeg_quality: Annotated[int, Field(ge=1, le=95), OR_NONE] = _UNSET
    """Lowest JPEG quality; the highest is 95."""

    @model_validator(mode="after")
    def _check(self) -> "AugmentConfig":
        smallest, largest = (
            CHAINS[self.chain][name] if getattr(self, name) is None else getattr(self, name)
            for name in ("scale_min", "scale_max")
        )
        if smallest > largest:
            raise ConfigError(
                "augment.scale_min: expected at most augment.scale_max, "
                f"got {smallest} and {largest}"
            )
        return self

    def resolved(self) -> "AugmentConfig":
        """Return the same settings with those of the chain where none is given."""
        given = {key: value for key, value in asdict(self).items() if value is not None}
        return AugmentConfig(**{**CHAINS[self.chain], **given})


def no_augmentation() -> AugmentConfig:
    """Return settings under which a crop is a piece of its image, unchanged."""
    names = [field.name for field in fields(AugmentConfig) if field.name.endswith("_probability")]
    off: dict[str, Any] = dict.fromkeys(names, 0.0)
    return AugmentConfig(**off)


def augment(
    sample: Sample, *, size: int, config: AugmentConfig, rng: np.random.Generator
) -> Sample:
    """Cut a random crop of ``size`` x ``size`` pixels from an image, and change how it looks.

    The changes follow the light: zoom and flip, colours, blur of the lens, noise and dead values of
    the sensor, JPEG. All randomness comes from ``rng``.
    """
    config = config.resolved()
    zoomed = _random_crop(sample, size=size, config=config, rng=rng)
    if rng.random() < config.flip_probability:
        zoomed = flip(zoomed)
    image = _coloured(zoomed.image, config=config, rng=rng)
    return replace(zoomed, image=_degraded(image, config=config, rng=rng))


def crop(sample: Sample, *, left: int, top: int, side: int, size: int) -> Sample:
    """Cut ``side`` x ``side`` pixels and resize them to ``size`` x ``size``.

    Only the heads on these pixels are kept. Heads outside the image are first moved to the nearest
    edge pixel, as for block counts.

    Raises:
        ValueError: If the square is not inside the image, or a coordinate is not finite.
    """
    height, width = sample.image.shape[:2]
    if not (side >= 1 and 0 <= left <= width - side and 0 <= top <= height - side):
        raise ValueError(
            f"a crop of {side} pixels at ({left}, {top}) is not inside a {width}x{height} image"
        )
    if not np.isfinite(sample.points).all():
        raise ValueError(f"{sample.name}: head coordinates must be finite")
    points = np.clip(sample.points, 0, np.array([width, height]) - _LAST) - [left, top]
    inside = ((points >= 0) & (points < side)).all(axis=1)
    pixels = sample.image[top : top + side, left : left + side]
    return replace(
        sample,
        image=_resized(pixels, size=size),
        # Multiplied before it is divided, an edge between two pixels stays exactly where it is.
        points=np.minimum(points[inside] * size / side, size - _LAST),
    )


def flip(sample: Sample) -> Sample:
    """Exchange left and right; a head on pixel column k moves to column width - 1 - k."""
    height, width = sample.image.shape[:2]
    points = upright_points(sample.points, size=(width, height), orientation=2)
    return replace(sample, image=np.asarray(cv2.flip(sample.image, 1)), points=points)


def _random_crop(
    sample: Sample, *, size: int, config: AugmentConfig, rng: np.random.Generator
) -> Sample:
    """Cut a random, possibly zoomed square.

    If the image is too small for the square, the square shrinks to its short side. That is the same
    as enlarging the image first, as the published augmentation does, and needs no padding.
    """
    height, width = sample.image.shape[:2]
    if rng.random() >= config.zoom_probability:
        zoom = 1.0
    elif config.scale_draw == "side":
        zoom = 1 / rng.uniform(1 / config.scale_max, 1 / config.scale_min)
    else:
        zoom = math.exp(rng.uniform(math.log(config.scale_min), math.log(config.scale_max)))
    side = min(max(round(size / zoom), 1), height, width)
    left = _random_start(width, side=side, draw=config.place_draw, rng=rng)
    top = _random_start(height, side=side, draw=config.place_draw, rng=rng)
    return crop(sample, left=left, top=top, side=side, size=size)


def _random_start(length: int, *, side: int, draw: str, rng: np.random.Generator) -> int:
    """Draw the first of ``side`` pixels out of ``length``."""
    if draw == "corner":
        return int(rng.integers(length - side + 1))
    return min(max(int(rng.integers(length)) - side // 2, 0), length - side)


def _resized(
    pixels: UInt8[np.ndarray, "side side 3"], *, size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """Resize bicubically; antialiased when shrinking, which torch can and OpenCV cannot."""
    if len(pixels) <= size:
        return np.asarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_CUBIC))
    # A copy, because torch refuses read-only pixels of a cache. Its channels are last, which is
    # fast in torch.
    planes = torch.from_numpy(np.array(pixels, order="C")).permute(2, 0, 1)[None]
    shrunk = F.interpolate(planes, size=(size, size), mode="bicubic", antialias=True)
    return np.ascontiguousarray(shrunk[0].permute(1, 2, 0).numpy())


def _coloured(
    image: UInt8[np.ndarray, "height width 3"], *, config: AugmentConfig, rng: np.random.Generator
) -> UInt8[np.ndarray, "height width 3"]:
    """Change the colours; all changes are linear, so they are one matrix."""
    matrix, offset = np.eye(3), 0.0
    if rng.random() < config.colour_probability:
        brightness = 1 + config.brightness * rng.uniform(-1, 1)
        contrast = 1 + config.contrast * rng.uniform(-1, 1)
        saturation = 1 + config.saturation * rng.uniform(-1, 1)
        hue = math.radians(config.hue * rng.uniform(-1, 1))
        matrix = brightness * contrast * _saturation_matrix(saturation) @ _hue_matrix(hue)
        offset = (1 - contrast) * brightness * float(_LUMA @ cv2.mean(image)[:3])
    if rng.random() < config.grey_probability:
        matrix = _saturation_matrix(0.0) @ matrix
    if offset == 0 and np.array_equal(matrix, np.eye(3)):
        return image
    return np.asarray(cv2.transform(image, np.column_stack([matrix, np.full(3, offset)])))


def _saturation_matrix(factor: float) -> Float64[np.ndarray, "3 3"]:
    """Return the matrix that multiplies the distance of a pixel from its own grey."""
    return factor * np.eye(3) + (1 - factor) * _LUMA


def _hue_matrix(radians: float) -> Float64[np.ndarray, "3 3"]:
    """Return the matrix that turns colours around the grey axis."""
    return np.asarray(cv2.Rodrigues(np.full(3, radians / math.sqrt(3)))[0])


def _degraded(
    image: UInt8[np.ndarray, "height width 3"], *, config: AugmentConfig, rng: np.random.Generator
) -> UInt8[np.ndarray, "height width 3"]:
    """Degrade the image as lenses, sensors and compression do."""
    if rng.random() < config.blur_probability:
        # OpenCV takes a width of 0 for its own default.
        sigma = max(rng.uniform(0, config.blur_sigma), 1e-3)
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma))
    if rng.random() < config.noise_probability:
        sigma = rng.uniform(0, config.noise_sigma)
        noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sigma)
        image = np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U))
    if rng.random() < config.salt_pepper_probability:
        image = _salted(image, share=config.salt_pepper, rng=rng)
    if rng.random() < config.jpeg_probability:
        image = _compressed(image, quality=int(rng.integers(config.jpeg_quality, 95 + 1)))
    return image


def _salted(
    image: UInt8[np.ndarray, "height width 3"], *, share: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "height width 3"]:
    """Replace values by 255 with probability ``share``, and by 0 as often."""
    lost = rng.choice(image.size, size=rng.binomial(image.size, 2 * share), replace=False)
    salted = image.copy()
    salted.flat[lost] = np.where(rng.random(len(lost)) < 0.5, 255, 0)
    return salted


def _compressed(
    image: UInt8[np.ndarray, "height width 3"], *, quality: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Encode the image as JPEG, and decode it."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))
