"""What pictures are put together from, by the numbers."""

import math

import numpy as np
import pytest

from benchmarks.negatives.surfaces import (
    Balls,
    Cells,
    Courses,
    lying,
    noise,
    relief,
    tilted,
)


def rng():
    return np.random.default_rng(2)


@pytest.mark.parametrize("slope", [-1, 0, 1, 2])
def test_noise_has_the_spectrum_it_is_asked_for(slope):
    values = noise(rng(), (256, 256), slope=slope)
    assert values.dtype == np.float32
    assert values.mean() == pytest.approx(0, abs=1e-3)
    assert values.std() == pytest.approx(1, abs=1e-3)
    amplitude = np.abs(np.fft.fft2(values))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    bands = [amplitude[(frequency > f) & (frequency < 1.3 * f)].mean() for f in (0.02, 0.2)]
    assert math.log(bands[0] / bands[1], 10) == pytest.approx(slope, abs=0.1)


def test_noise_drawn_out_across_changes_slowest_along_rows():
    values = noise(rng(), (128, 128), slope=1, stretch=(1, 20))
    assert np.abs(np.diff(values, axis=1)).mean() < 0.3 * np.abs(np.diff(values, axis=0)).mean()


def test_a_slope_towards_the_light_is_bright_and_a_level_one_as_it_was():
    heights = np.zeros((20, 30), np.float32)
    heights[:, 10:20] = np.arange(10)
    heights[:, 20:] = 10
    light = relief(heights, angle=0, strength=0.25)
    np.testing.assert_allclose(light[:, [3, 14, 27]], [[1, 0.75, 1]] * 20)
    assert relief(heights, angle=math.pi, strength=0.25)[5, 14] == pytest.approx(1.25)


def test_courses_part_a_plane_into_rows_that_are_moved_against_each_other():
    pieces = Courses.of((20, 40), high=5, wide=10, shift=0.5)
    assert pieces.count == (4, 5)
    assert pieces.col[0].tolist() == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 10
    assert pieces.col[5].tolist() == [0] * 5 + [1] * 10 + [2] * 10 + [3] * 10 + [4] * 5
    assert pieces.each(np.arange(20.0).reshape(4, 5))[12, 25] == 12
    # Of 10 by 5 pixels 8 by 3 stay, and the middle row is 1.5 from the outline.
    inside = Courses.of((5, 10), high=5, wide=10).inside(margin=1)
    assert (inside > 0).sum() == 8 * 3
    assert inside.max() == pytest.approx(1.5)
    rounded = Courses.of((5, 10), high=5, wide=10).inside(margin=1, corner=1.5)
    assert rounded[1, 1] < inside[1, 1]
    assert rounded[2, 5] == inside[2, 5]
    lower = Courses.of((5, 10), high=5, wide=10).inside(margin=1, top=1, bottom=-1)
    assert (lower > 0).any(axis=1).tolist() == [False, False, True, True, True]


def test_each_pixel_of_a_cell_is_nearest_to_its_centre():
    cells = Cells.drawn(rng(), (60, 80), spacing=12, jitter=0.3)
    rows, cols = np.indices((60, 80))
    centres = {
        owner: (row - down, col - across)
        for owner, row, col, down, across in zip(
            cells.owner.flat, rows.flat, cols.flat, cells.down.flat, cells.across.flat, strict=True
        )
    }
    assert len(centres) > 20
    places = np.array([centres[owner] for owner in sorted(centres)])
    away = np.hypot(rows[..., None] - places[:, 0], cols[..., None] - places[:, 1]).min(axis=2)
    # OpenCV measures along chamfered paths, a few percent off.
    assert (cells.distance - away).max() < 1
    assert (cells.to_edge() <= cells.distance.max()).all()
    assert (cells.to_edge() == 0).any()


def test_a_ball_is_brightest_towards_the_light_and_ends_at_its_radius():
    cells = Cells.drawn(rng(), (41, 41), spacing=400, jitter=0)
    radius = np.full((41, 41), 15, np.float32)
    rows, cols = np.indices((41, 41), np.float32)
    one = Cells(owner=cells.owner, across=cols - 20, down=rows - 20, count=1)
    balls = Balls.of(one, radius, angle=0)
    assert balls.covers[20, 20] == 1
    assert balls.covers[20, 37] == 0
    assert balls.brightness[20, 30] > balls.brightness[20, 20] > balls.brightness[20, 10]
    row, col = np.unravel_index(balls.gloss.argmax(), balls.gloss.shape)
    assert row == 20
    assert 22 < col < 29


@pytest.mark.parametrize("view", [tilted, lying])
def test_a_view_of_a_plane_fills_the_picture_with_it(view):
    def paint(rng, size):
        return np.full((*size, 3), 50, np.float32)

    np.testing.assert_allclose(view(rng(), (31, 47), paint), np.full((31, 47, 3), 50), atol=1e-3)


def test_the_ground_is_smaller_far_away():
    def paint(rng, size):
        stripes = (np.arange(size[1]) // 10 % 2 * 100).astype(np.float32)
        return np.tile(stripes[None, :, None], (size[0], 1, 3))

    seen = lying(rng(), (200, 300), paint)[..., 0]
    far, near = ((np.diff(np.sign(row - 50)) != 0).sum() for row in (seen[10], seen[-10]))
    assert far > 1.1 * near
