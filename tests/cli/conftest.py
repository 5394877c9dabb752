"""Images for commands to count."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photos(workplace):
    """Three files: an image of an ordinary size, one smaller than a block, and a web page."""
    random = np.random.default_rng(0)
    for name, size in {"a.png": (90, 130), "tiny.png": (5, 3)}.items():
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(workplace / name)
    (workplace / "broken.jpg").write_text("<html>not found</html>")
    return workplace
