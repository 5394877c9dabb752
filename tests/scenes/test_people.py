"""What is painted on a canvas: colours and head numbers in step, people whole, ones nobody."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdcount.scenes.people import HEAD_UP, OBJECTS, Canvas, Object, Pen, Person
from crowdcount.scenes.scenery import Camera, Light

CAMERA = Camera(
    width=160, height=120, horizon=-20.0, up=4.0, focal=300.0, nearest=5.0, farthest=20.0
)
BLACK = np.zeros((120, 160, 3), np.uint8)
positions = st.tuples(st.floats(-20, 180), st.floats(-140, 20))


def pen(canvas, *, x=0.0, depth=9.0, size=1.0):
    return Pen(canvas, CAMERA, Light.random(np.random.default_rng(0)), x=x, depth=depth, size=size)


def pixel_pen(canvas):
    """A pen at the upper left corner whose metre is a pixel, without haze."""
    camera = Camera(width=0, height=0, horizon=0.0, up=0.0, focal=1.0, nearest=1.0, farthest=1.0)
    light = replace(Light.random(np.random.default_rng(0)), haze=0.0)
    return Pen(canvas, camera, light, x=0.0, depth=1.0, size=1.0)


@given(centre=positions, axes=st.tuples(st.floats(1, 30), st.floats(1, 30)), over=positions)
def test_a_pixel_has_the_number_of_the_head_whose_colour_it_has(centre, axes, over):
    canvas = Canvas(BLACK)
    paint = pixel_pen(canvas)
    paint.head = 1
    paint.oval(centre, axes, (200, 0, 0))
    paint.head = 2
    paint.oval(over, (12, 15), (0, 200, 0))
    paint.path([(0, -60), over], 4.0, (0, 0, 200))
    red, green, blue, number = np.moveaxis(canvas.pixels, 2, 0)
    np.testing.assert_array_equal(number == 1, red == 200)
    np.testing.assert_array_equal(number == 2, green == 200)
    assert not number[blue == 200].any()


def test_an_oval_lies_where_it_is_put():
    canvas = Canvas(BLACK)
    paint = pixel_pen(canvas)
    paint.head = 1
    paint.oval((50.25, -40.5), (10, 20), (9, 9, 9))
    rows, cols = np.nonzero(canvas.pixels[..., 3])
    # Centres of painted pixels, in pixels of the image.
    assert (cols.mean() + 0.5) / 2 == pytest.approx(50.25, abs=0.1)
    assert (rows.mean() + 0.5) / 2 == pytest.approx(40.5, abs=0.1)
    assert len(rows) / 4 == pytest.approx(np.pi * 10 * 20, rel=0.05)


@pytest.mark.parametrize("seed", range(40))
def test_the_head_of_a_person_is_where_the_person_says_and_as_large(seed):
    canvas, rng = Canvas(BLACK), np.random.default_rng(seed)
    person = Person.random(rng, x=0.3, depth=7.0, turn=rng.uniform(0, 7))
    person.paint(pen(canvas, x=person.x, depth=7.0, size=person.size), 1)
    rows, cols = np.nonzero(canvas.owners() == 1)
    x, y = person.head_in(CAMERA)
    assert ((cols.min() + cols.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2) == pytest.approx(
        (x, y), abs=1
    )
    assert len(rows) == pytest.approx(person.head_area(CAMERA), rel=0.2)


def test_projection_by_hand():
    # 300 px focal length at 10 m: 30 px a metre. A camera 4 m up sees the ground 120 px below.
    assert CAMERA.project(1.0, 10.0) == (110.0, 100.0)
    assert CAMERA.project(0.0, 10.0, HEAD_UP) == pytest.approx((80.0, 100 - 30 * HEAD_UP))
    assert CAMERA.half_view(10.0) == pytest.approx(80 / 30)


@pytest.mark.parametrize("kind", OBJECTS)
def test_an_object_shows_and_is_no_head(kind):
    canvas = Canvas(BLACK)
    one = Object(kind=kind, x=0.0, depth=12.0, size=1.0, colour=(90, 90, 200))
    one.paint(pen(canvas, depth=12.0))
    assert canvas.pixels[..., :3].any()
    assert not canvas.owners().any()
