"""Which software decided the bytes of prepared files."""

import zlib
from importlib.metadata import version

import cv2
from PIL import features

from crowdcount.version import __version__

Versions = dict[str, tuple[str, ...]]
"""By name; more than one version, where files of different ones lie side by side."""


def versions_now() -> Versions:
    """What is at work in this process.

    Pillow and its JPEG library decode, OpenCV resizes and encodes, zlib packs, and numpy draws what
    is held out. No other version of them promises the same bytes.
    """
    return {
        "crowdcount": (__version__,),
        "pillow": (version("pillow"),),
        "libjpeg-turbo": (features.version_feature("libjpeg_turbo") or "none",),
        "opencv": (cv2.__version__,),
        "zlib": (zlib.ZLIB_RUNTIME_VERSION,),
        "numpy": (version("numpy"),),
    }


def joined_versions(one: Versions, other: Versions) -> Versions:
    """What files of both were made with."""
    return {
        name: tuple(sorted({*one.get(name, ()), *other.get(name, ())})) for name in {**one, **other}
    }
