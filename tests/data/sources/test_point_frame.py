"""Told by the points themselves: the frame of turned photographs, and points of another size."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.point_frame import AnnotatedHeads, frame_of, suspicion_of
from crowdcount.errors import ConfigError

PIXELS = PointsFormat(reader="csv", frame="upright")


def image(heads=60, *, orientation=1, stored=(640, 480), seed=0, frame="upright", scale=1.0):
    """An image with heads all over it, annotated in a frame."""
    upright = stored if orientation < 5 else stored[::-1]
    size = np.asarray(upright if frame == "upright" else stored, dtype=float)
    points = np.random.default_rng(seed).uniform(0, size, (heads, 2)) * scale
    return AnnotatedHeads(
        heads=points, width=upright[0], height=upright[1], orientation=orientation
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("frame", ["upright", "stored"])
def test_the_frame_of_photographs_on_their_side_is_told(orientation, frame):
    images = [
        image(orientation=orientation, frame=frame),
        image(orientation=orientation, frame=frame, seed=1),
        image(seed=2),
    ]
    on_side = orientation >= 5
    assert frame_of(images) == (frame if on_side else "upright")
    # Heads in the middle tell nothing.
    middle = AnnotatedHeads(
        heads=np.full((9, 2), 100.0), width=480, height=640, orientation=orientation
    )
    assert frame_of([middle]) == "upright"


def test_exchanged_axes_are_no_turn():
    """Where x and y seem exchanged in upright photographs, a turn is not certain."""
    exchanged = image(orientation=6, frame="stored")
    upright = image(seed=3)
    wrong = AnnotatedHeads(heads=upright.heads[:, ::-1], width=640, height=480, orientation=1)
    assert frame_of([exchanged]) == "stored"
    assert frame_of([exchanged, wrong]) == "upright"


def test_a_turn_that_leaves_heads_outside_is_not_certain():
    beyond = AnnotatedHeads(
        heads=np.array([[600.0, 100.0], [610.0, 90.0], [300.0, 500.0]]),
        width=480,
        height=640,
        orientation=6,
    )
    assert frame_of([beyond]) == "upright"


@given(factor=st.floats(1.3, 20), seed=st.integers(0, 99))
def test_points_of_a_larger_image_are_suspicious_and_the_advice_mends_it(factor, seed):
    images = [image(seed=seed + k, scale=factor) for k in range(4)]
    found = suspicion_of(images, PIXELS)
    assert found is not None
    assert "lie outside their images" in found.reason
    (advised,) = re.findall(r"--points-scale ([\d.]+),", found.next_step)
    assert float(advised) == pytest.approx(1 / factor, rel=0.05)
    mended = PointsFormat(reader="csv", scale=float(advised))
    for each in images:
        inside = mended.in_pixels(each.heads, size=(640, 480))
        assert (inside >= 0).all()
        assert (inside < (640, 480)).all()
    assert suspicion_of(images, PointsFormat(reader="csv", scale=1.0)) is None


@pytest.mark.parametrize("orientation", [1, 6])
def test_parts_of_width_and_height_are_suspicious_and_the_advice_mends_it(orientation):
    images = [image(orientation=orientation, seed=seed) for seed in range(3)]
    parts = [
        AnnotatedHeads(
            heads=each.heads / (each.width, each.height),
            width=each.width,
            height=each.height,
            orientation=orientation,
        )
        for each in images
    ]
    found = suspicion_of(parts, PIXELS)
    assert found is not None
    assert "parts of width and height" in found.reason
    assert "--points-scale image" in found.next_step
    mended = PointsFormat(reader="csv", scale="image")
    for part, each in zip(parts, images, strict=True):
        np.testing.assert_allclose(part.upright(mended), each.heads)


@given(seed=st.integers(0, 99), heads=st.integers(0, 40), beyond=st.integers(0, 9))
def test_ordinary_points_are_not_suspicious(seed, heads, beyond):
    """A few heads beyond the edge, empty scenes, and exchanged axes, which have a warning."""
    crowd = image(60, seed=seed)
    strays = np.vstack([crowd.heads, np.full((beyond, 2), 700.0)])
    exchanged = AnnotatedHeads(heads=crowd.heads[:, ::-1], width=640, height=480, orientation=1)
    images = [
        AnnotatedHeads(heads=strays, width=640, height=480, orientation=1),
        image(heads, seed=seed + 1),
        image(0),
    ]
    assert suspicion_of(images, PIXELS) is None
    assert suspicion_of([exchanged], PIXELS) is None
    assert suspicion_of([], PIXELS) is None


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), "images", ""])
def test_a_scale_is_a_positive_number_or_image(scale):
    with pytest.raises(ConfigError, match="expected a number above 0 or 'image'"):
        PointsFormat(reader="csv", scale=scale)
