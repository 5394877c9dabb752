"""Backdrops, and what light does to a picture."""

import numpy as np
import pytest

from crowdcount.scenes.scenery import BACKDROPS, Camera, Light, add_haze, cast_shadows, photograph

LIGHT = Light(
    sun=(1.0, 0.0),
    shade=0.5,
    gains=(1.0, 1.0, 1.0),
    haze=0.4,
    slope=(0.0, 0.0),
    vignette=0.0,
    blur=0.3,
    noise=0.0,
)


def camera(horizon):
    return Camera(
        width=128, height=96, horizon=horizon, up=4.0, focal=120.0, nearest=4.0, farthest=16.0
    )


@pytest.mark.parametrize("name", BACKDROPS)
@pytest.mark.parametrize("horizon", [-60.0, -0.5, 0.0, 30.2])
def test_a_backdrop_fills_the_ground_whatever_the_horizon(name, horizon):
    picture = np.zeros((96, 128, 3), np.uint8)
    half_width = BACKDROPS[name](picture, camera(horizon), np.random.default_rng(1))
    ground = picture[max(int(horizon) + 1, 0) :]
    assert (ground.max(axis=2) > 0).all()
    assert ground.std() > 2
    assert half_width > 0


def test_a_shadow_falls_away_from_the_sun_and_the_ground_fades_with_distance():
    picture = np.full((96, 128, 3), 100, np.uint8)
    # At 8 m, 15 px a metre: the foot is at (64, 80), and 2 m of height reach 30 px to the right.
    cast_shadows(picture, camera(20.0), LIGHT, [(0.0, 8.0, 2.0, 0.5)])
    assert int(picture[80, 80, 0]) == pytest.approx(50, abs=3)
    assert picture[80, 48, 0] == 100
    add_haze(picture, camera(20.0), LIGHT)
    column = picture[21:, 5].astype(int)
    assert (np.diff(column, axis=0) <= 0).all()
    assert column[0, 0] > column[-1, 0] + 10


def test_a_photograph_of_even_light_shows_the_scene_and_warm_light_reddens_it():
    scene = np.full((20, 30, 4), 100, np.uint16)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(photograph(scene, LIGHT, rng), scene[..., :3])
    warm = Light(**{**vars(LIGHT), "gains": (1.2, 1.0, 0.8), "noise": 4.0})
    picture = photograph(scene, warm, rng)
    assert picture.mean(axis=(0, 1)) == pytest.approx((120, 100, 80), abs=1)
    assert 2 < picture[..., 1].std() < 5
