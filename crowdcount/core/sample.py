"""An annotated image, as it travels between the parts. Needs no torch to load."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One annotated image."""

    name: str
    """What the image is called in its data set, such as ``train/IMG_12``."""

    image: UInt8[np.ndarray, "height width 3"]
    """Upright RGB pixels."""

    points: Float64[np.ndarray, "heads 2"]
    """Head centres ``(x, y)`` in pixels of ``image``, origin at the top-left corner."""
