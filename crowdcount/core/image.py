"""Images as numbers: samples, channel statistics, resizing, working size. Loads without torch."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from crowdcount.core.limits import MAX_SIDE
from crowdcount.opencv import cv2


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One annotated image."""

    name: str
    """Name of the image in its data set, such as ``train/IMG_12``."""

    image: UInt8[np.ndarray, "height width 3"]
    """Upright RGB pixels."""

    points: Float64[np.ndarray, "heads 2"]
    """Head centres ``(x, y)`` in pixels of ``image``, origin at the top-left corner."""


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Channel statistics with which a backbone was trained, for RGB in [0, 1].

    Raises:
        ValueError: If the statistics are out of range.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        # Pixels are divided by the spread; a quarter of an 8-bit step is 0.001.
        if not all(0 <= mean <= 1 for mean in self.mean) or not all(
            0.001 <= std <= 1 for std in self.std
        ):
            raise ValueError(
                "channel statistics need means from 0 to 1 and spreads from 0.001 to 1, "
                f"got mean {self.mean}, std {self.std}"
            )


NORMALISATIONS: dict[str, Normalisation] = {
    # Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
    "clip": Normalisation(
        mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
    ),
    # Statistics of the ImageNet training set that torchvision's models use.
    "imagenet": Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    # "Inception" preprocessing of TensorFlow models, the EfficientNet-Lite family among them.
    "half": Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    # MobileCLIP takes RGB in [0, 1] as it is.
    "none": Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
}


@dataclass(frozen=True, kw_only=True)
class WorkingSize:
    """The range of image sizes in which a model was trained and counts best.

    Images are brought into it with their aspect ratio kept: a short side below the minimum is
    enlarged to it, a long side above the maximum reduced to it. Where an image is so long that both
    cannot hold, the maximum wins, because it bounds memory and time.

    Raises:
        ValueError: If the maximum is below the minimum, the minimum below 1, or the maximum beyond
            every image.
    """

    short_side_min: int
    """Pixels."""

    long_side_max: int
    """Pixels."""

    def __post_init__(self) -> None:
        if not 1 <= self.short_side_min <= self.long_side_max <= MAX_SIDE:
            raise ValueError(
                f"a working size needs 1 <= short_side_min <= long_side_max <= {MAX_SIDE}, "
                f"got {self.short_side_min} and {self.long_side_max}"
            )

    def scale(self, *, width: int, height: int) -> float:
        """Return the factor that brings an image of this size into the range."""
        short, long = sorted((width, height))
        return min(max(1.0, self.short_side_min / short), self.long_side_max / long)


def scaled_size(*, width: int, height: int, scale: float) -> tuple[int, int]:
    """Return ``(width, height)`` after scaling, each side rounded and at least one pixel."""
    return max(round(width * scale), 1), max(round(height * scale), 1)


# OpenCV's bicubic reads four pixels a side however far an image shrinks. Below this factor it skips
# pixels, which shows as aliasing; Pillow's bicubic reads all of them and is slow.
_SHARPEST_SHRINK = 0.75


def resized(
    image: UInt8[np.ndarray, "height width 3"], *, width: int, height: int
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Resize pixels: bicubic, and antialiased where they shrink far.

    Preparation, evaluation and prediction all resize photographs with it, so that they agree.
    """
    old_height, old_width = image.shape[:2]
    if (old_height, old_width) == (height, width):
        return image
    if min(width / old_width, height / old_height) >= _SHARPEST_SHRINK:
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC))
    # A copy, because Pillow lends its pixels read-only.
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
