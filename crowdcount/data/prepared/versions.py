"""Versions of the software that decides the bytes of prepared files."""

import zlib
from importlib.metadata import version

from PIL import features

from crowdcount.opencv import cv2
from crowdcount.version import __version__

Versions = dict[str, tuple[str, ...]]
"""Versions by name; several where files of different versions are in one folder."""


def versions_now() -> Versions:
    """Return the versions used in this process.

    Pillow and its JPEG library decode, OpenCV resizes and encodes, zlib compresses, and numpy draws
    the held-out images. Other versions of them may write other bytes.
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
    """Return the versions of both, by name."""
    return {
        name: tuple(sorted({*one.get(name, ()), *other.get(name, ())})) for name in {**one, **other}
    }
