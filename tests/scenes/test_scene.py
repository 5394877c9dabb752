"""Rendered scenes: reproducible, exact to the pixel, varied, and readable as a data set."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdcount.errors import UsageError
from crowdcount.scenes.people import HEAD_HEIGHT, HEAD_WIDTH
from crowdcount.scenes.scene import (
    VISIBLE_PART,
    SceneSettings,
    render_scene,
    render_with_owners,
    write_scenes,
)

SETTINGS = SceneSettings()
SMALL = SceneSettings(width=96, height=64, max_heads=12, smallest_head=2.0, largest_head=6.0)
PROFILE = HEAD_HEIGHT / HEAD_WIDTH


def scene(number, settings=SETTINGS):
    return render_with_owners(np.random.default_rng([7, number]), settings, name="scene")


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "points.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def scenes():
    return [scene(number) for number in range(1, 41)]


def test_the_generator_decides_everything():
    one, other = (
        render_scene(np.random.default_rng(3), SETTINGS, name=name) for name in ("a", "b")
    )
    assert (one.name, other.name) == ("a", "b")
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.points, other.points)
    assert not np.array_equal(one.image, scene(1)[0].image)


@given(
    number=st.integers(0, 10**6),
    width=st.integers(32, 300),
    height=st.integers(32, 300),
    max_heads=st.integers(0, 60),
    smallest=st.floats(1, 6),
)
def test_any_settings_give_points_inside_and_heads_that_show(
    number, width, height, max_heads, smallest
):
    settings = SceneSettings(
        width=width,
        height=height,
        max_heads=max_heads,
        smallest_head=smallest,
        largest_head=3 * smallest,
    )
    sample, owners = scene(number, settings)
    assert sample.image.shape == (height, width, 3)
    assert len(sample.points) <= max_heads
    assert (sample.points >= 0).all()
    assert (sample.points < [width, height]).all()
    assert set(np.unique(owners)) - {0} == set(range(1, len(sample.points) + 1))


def test_each_annotated_head_shows_where_its_point_says_and_no_other_head_does(scenes):
    for sample, owners in scenes:
        # Numbers and points match one to one: no head without a point, no point without a head.
        shown = np.bincount(owners.ravel(), minlength=len(sample.points) + 1)[1:]
        assert len(shown) == len(sample.points)
        assert (shown > 0).all()
        for number, (x, y) in enumerate(sample.points, start=1):
            rows, cols = np.nonzero(owners == number)
            across, down = cols + 0.5 - x, (rows + 0.5 - y) / PROFILE
            # All its pixels lie in an ellipse around the point, and they fill enough of it.
            reach = np.hypot(across, down).max()
            assert reach < 1.25 * SETTINGS.largest_head
            least = VISIBLE_PART * np.pi * PROFILE * max(reach - 1.5, 0) ** 2
            assert len(rows) >= 0.9 * least


def test_points_are_the_centres_of_heads_that_nothing_hides():
    settings = SceneSettings(max_heads=4, empty_fraction=0.0)
    offsets = []
    for number in range(40):
        sample, owners = scene(number, settings)
        for head, (x, y) in enumerate(sample.points, start=1):
            rows, cols = np.nonzero(owners == head)
            left, right, top, bottom = cols.min(), cols.max() + 1, rows.min(), rows.max() + 1
            whole = len(rows) > 0.97 * np.pi / 4 * (right - left) * (bottom - top)
            upright = abs((bottom - top) / (right - left) - PROFILE) < 0.12
            inside = min(left, top, settings.width - right, settings.height - bottom) > 0
            if whole and upright and inside and bottom - top > 8:
                offsets.append(((left + right) / 2 - x, (top + bottom) / 2 - y))
    assert len(offsets) > 30
    # Half a pixel is what counting whole pixels costs; the means show that nothing is shifted.
    assert np.abs(offsets).max() <= 1
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.3


def test_heads_are_larger_towards_the_bottom(scenes):
    ratios = []
    for sample, owners in scenes:
        shown = np.bincount(owners.ravel(), minlength=len(sample.points) + 1)[1:]
        order = np.argsort(sample.points[:, 1])
        third = len(order) // 3
        if third >= 3:
            far, near = shown[order[:third]], shown[order[-third:]]
            ratios.append(np.median(near) / np.median(far))
    assert len(ratios) > 10
    assert min(ratios) > 1
    assert np.median(ratios) > 2


def test_counts_reach_from_nobody_to_a_dense_crowd(scenes):
    counts = np.array([len(sample.points) for sample, _ in scenes])
    assert 1 <= (counts == 0).sum() <= 10
    assert counts.max() > 100
    assert counts.max() <= SETTINGS.max_heads
    # Guessing the mean must be bad, or a model that beats it proves nothing.
    assert np.abs(counts - counts.mean()).mean() > 0.6 * counts.mean()


@pytest.mark.parametrize(
    "settings", [SceneSettings(max_heads=0), SceneSettings(empty_fraction=1.0)]
)
def test_scenes_can_be_empty(settings):
    sample, owners = scene(1, settings)
    assert sample.points.shape == (0, 2)
    assert not owners.any()


def test_a_written_set_holds_every_head_once(tmp_path):
    write_scenes(tmp_path / "set", images=30, seed=5, settings=SMALL)
    rows = rows_of(tmp_path / "set")
    assert list(rows[0]) == ["image", "x", "y"]
    names = [f"scene_{number:04d}.jpg" for number in range(1, 31)]
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["points.csv", *names]
    assert list(dict.fromkeys(row["image"] for row in rows)) == names
    empty = 0
    for number, name in enumerate(names, start=1):
        expected = render_scene(np.random.default_rng([5, number]), SMALL, name=name)
        mine = [(row["x"], row["y"]) for row in rows if row["image"] == name]
        if mine == [("", "")]:
            empty += 1
            mine = []
        points = np.array(mine, dtype=float).reshape(-1, 2)
        np.testing.assert_array_equal(points, expected.points)
        image = cv2.imread(str(tmp_path / "set" / name))[..., ::-1]
        assert image.shape == expected.image.shape
        # JPEG changes pixels a little; red and blue exchanged would change them much.
        assert np.abs(image.astype(float) - expected.image).mean() < 8
    assert empty > 0


def test_the_same_seed_gives_the_same_bytes_and_more_scenes_change_none(tmp_path):
    for name, images, seed in (("a", 4, 5), ("b", 6, 5), ("c", 4, 6)):
        write_scenes(tmp_path / name, images=images, seed=seed, settings=SMALL)
    for path in (tmp_path / "a").glob("*.jpg"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        assert path.read_bytes() != (tmp_path / "c" / path.name).read_bytes()
    table = (tmp_path / "a" / "points.csv").read_bytes()
    assert (tmp_path / "b" / "points.csv").read_bytes().startswith(table)


def test_an_interrupted_set_leaves_nothing(tmp_path):
    def interrupted(items, *, label, total=None):
        yield from list(items)[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "set", images=4, seed=1, settings=SMALL, track=interrupted)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        write_scenes(tmp_path, images=1, seed=1, settings=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 31),
        ("height", 0),
        ("max_heads", -1),
        ("max_heads", 2**16),
        ("empty_fraction", 1.1),
        ("empty_fraction", float("nan")),
        ("smallest_head", 0.5),
        ("smallest_head", float("nan")),
        ("largest_head", 4.0),
        ("largest_head", float("inf")),
    ],
)
def test_a_setting_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}="):
        SceneSettings(**{name: value})
