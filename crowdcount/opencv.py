"""OpenCV, imported here alone: where it cannot be loaded, an error says what to install."""

from crowdcount.errors import CrowdCountError

try:
    import cv2
except ImportError as error:
    raise CrowdCountError(
        f"OpenCV cannot be loaded: {error}",
        looked_for="the system's graphics libraries, which opencv-python needs",
        next_step="apt-get install libgl1 libglib2.0-0 (on Debian and Ubuntu), or: "
        "pip uninstall -y opencv-python && pip install opencv-python-headless",
    ) from error

__all__ = ["cv2"]
