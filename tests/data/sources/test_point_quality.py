import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.point_quality import (
    axes_seem_swapped,
    count_duplicates,
    faults,
    finite,
    remarks,
)
from tests import prepared_sets

anything = arrays(np.float64, st.tuples(st.integers(0, 30), st.just(2)))


def record(name, **facts):
    return prepared_sets.record("train", name, **{"heads": 9, "duplicates": 0, **facts})


def crowd(heads, *, width=1024, height=768, seed=0):
    return np.random.default_rng(seed).uniform(0, (width, height), (heads, 2))


@given(anything)
def test_what_is_dropped_has_no_place_and_the_rest_stays(points):
    kept = finite(points)
    assert np.isfinite(kept).all()
    bad = sum(not np.isfinite(head).all() for head in points)
    assert len(kept) == len(points) - bad


@given(arrays(np.float64, st.tuples(st.integers(0, 8), st.just(2)), elements=st.floats(-2, 2)))
def test_a_point_is_repeated_where_another_is_equal_to_it(points):
    first_seen = {(x, y) for x, y in points.tolist()}
    assert count_duplicates(points) == len(points) - len(first_seen)


@pytest.mark.parametrize("size", [(1024, 768), (768, 1024)])
@given(heads=st.integers(30, 300), seed=st.integers(0, 1000))
def test_a_crowd_with_swapped_axes_is_distinguished_from_one_without(size, heads, seed):
    points = crowd(heads, width=size[0], height=size[1], seed=seed)
    assert axes_seem_swapped(points[:, ::-1], size=size)
    assert not axes_seem_swapped(points, size=size)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("far", [-3.0, 1024.0, 5000.0])
@given(heads=st.integers(0, 100), beyond=st.integers(0, 20))
def test_heads_beyond_every_edge_are_no_swapped_axes(axis, far, heads, beyond):
    points = crowd(heads + beyond)
    points[:beyond, axis] = far
    assert not axes_seem_swapped(points, size=(1024, 768))


def test_a_few_heads_below_the_edge_of_a_crowd_are_no_swapped_axes():
    points = np.concatenate([crowd(500), [[100.0, 768.0]] * 10])
    assert not axes_seem_swapped(points, size=(1024, 768))


def test_a_square_image_and_a_single_head_cannot_tell():
    assert not axes_seem_swapped(crowd(50)[:, ::-1], size=(1024, 1024))
    assert not axes_seem_swapped(np.array([[100.0, 900.0]]), size=(1024, 768))
    assert axes_seem_swapped(np.array([[100.0, 900.0], [7.0, 800.0]]), size=(1024, 768))


def test_a_set_without_faults_gets_no_warning():
    records = [record("a.jpg"), record("b.jpg")]
    assert faults(records, points=PointsFormat(reader="csv")) == remarks(records) == ()


def test_faults_name_images_and_numbers():
    records = [
        record("a.jpg", outside=2),
        record("b.jpg", dropped=1),
        record("c.jpg", outside=1, axes_swapped=True),
    ]
    assert faults(records, points=PointsFormat(reader="csv")) == (
        "x and y seem to have changed places in 1 image, whose heads outside would lie inside: "
        "train/c.jpg; if so, pass --order yx",
        "3 heads outside, moved to the edge, in 2 images: train/a.jpg (2), train/c.jpg (1)",
        "1 head without a finite place, left out, in 1 image: train/b.jpg (1)",
    )
    assert "pass --order xy" in faults(records, points=PointsFormat(reader="csv", order="yx"))[0]


def test_long_lists_are_cut():
    records = [record(f"{n}.jpg", outside=1, axes_swapped=True) for n in range(9)]
    assert all("and 4 more" in line for line in faults(records, points=PointsFormat(reader="csv")))


def test_remarks_are_of_duplicates_and_empty_scenes():
    records = [record("a.jpg", duplicates=1), record("b.jpg", heads=0), record("c.jpg", heads=0)]
    assert remarks(records) == (
        "1 head at the place of another, kept, in 1 image: train/a.jpg (1)",
        "nobody in 2 images: train/b.jpg, train/c.jpg",
    )
