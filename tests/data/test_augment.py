import math
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from crowdcount.core.blocks import block_counts, head_pixels
from crowdcount.core.sample import Sample
from crowdcount.data.augment import AugmentConfig, augment, crop, flip
from crowdcount.errors import ConfigError

PROBABILITIES = [field.name for field in fields(AugmentConfig) if "probability" in field.name]
PLAIN = AugmentConfig(**dict.fromkeys(PROBABILITIES, 0.0), scale_min=1.0, scale_max=1.0)
EVERYTHING = AugmentConfig(**dict.fromkeys(PROBABILITIES, 1.0))

seeds = st.integers(0, 2**32)


def sample_of(points, *, width, height, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample(
        name="crowd", image=image, points=np.array(points, dtype=np.float64).reshape(-1, 2)
    )


def inside_sample(points, *, width, height):
    """A sample whose heads are all inside, as a crop leaves them."""
    inside = [(x, y) for x, y in points if 0 <= x < width and 0 <= y < height]
    return sample_of(inside, width=width, height=height)


def coordinates(side):
    """Anywhere in the image, on pixel edges, just beside them, and outside."""
    return st.one_of(
        st.floats(0, side, exclude_max=True, width=32),
        st.integers(-2, side + 2).map(float),
        st.integers(1, side).map(lambda edge: float(np.nextafter(np.float32(edge), np.float32(0)))),
    )


@st.composite
def annotated(draw, max_side=60):
    width, height = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    points = draw(st.lists(st.tuples(coordinates(width), coordinates(height)), max_size=20))
    return points, width, height


def pixels_of(sample):
    height, width = sample.image.shape[:2]
    return head_pixels(torch.from_numpy(sample.points), height=height, width=width).numpy()


@given(annotated(), st.data())
def test_a_crop_keeps_exactly_the_heads_on_its_pixels(image, data):
    points, width, height = image
    sample = sample_of(points, width=width, height=height)
    side = data.draw(st.integers(1, min(width, height)))
    left = data.draw(st.integers(0, width - side))
    top = data.draw(st.integers(0, height - side))
    cut = crop(sample, left=left, top=top, side=side, size=side)
    expected = [
        (x - left, y - top)
        for x, y in pixels_of(sample).tolist()
        if left <= x < left + side and top <= y < top + side
    ]
    assert [tuple(pixel) for pixel in pixels_of(cut).tolist()] == expected
    assert (cut.image == sample.image[top : top + side, left : left + side]).all()


@given(annotated(), st.data(), st.integers(1, 64))
def test_the_crops_of_a_tiling_share_out_the_heads(image, data, size):
    points, side, _ = image
    tiles = data.draw(st.integers(1, 3))
    sample = sample_of(points, width=side * tiles, height=side)
    cuts = [crop(sample, left=side * k, top=0, side=side, size=size) for k in range(tiles)]
    assert sum(len(cut.points) for cut in cuts) == len(points)


@given(annotated(), st.data(), st.integers(1, 64))
def test_heads_move_with_the_zoom(image, data, size):
    points, width, height = image
    sample = sample_of(points, width=width, height=height)
    side = data.draw(st.integers(1, min(width, height)))
    zoomed = crop(sample, left=0, top=0, side=side, size=size)
    plain = crop(sample, left=0, top=0, side=side, size=side)
    # A head at the far end of the last pixel is held 1/1024 of a pixel inside, before and after.
    assert np.allclose(zoomed.points, plain.points * size / side, atol=2e-3 * max(size / side, 1))
    assert ((zoomed.points >= 0) & (zoomed.points < size)).all()
    assert zoomed.image.shape == (size, size, 3)


@pytest.mark.parametrize("size", [16, 24, 48, 96, 120])
def test_what_is_under_a_head_stays_under_it(size):
    # A white square around the head; its centre of mass is where the head has gone.
    sample = replace(
        sample_of([(30, 21)], width=64, height=64), image=np.zeros((64, 64, 3), dtype=np.uint8)
    )
    sample.image[18:24, 27:33] = 255
    moved = flip(crop(sample, left=10, top=5, side=48, size=size))
    light = moved.image[..., 0].astype(float)
    centre = np.arange(size) + 0.5
    seen = [(light.sum(axis=axis) @ centre) / light.sum() for axis in (0, 1)]
    assert seen == pytest.approx(moved.points[0].tolist(), abs=0.05 + size / 48 * 0.05)


@given(
    st.lists(st.tuples(coordinates(48), coordinates(32)), max_size=20), st.sampled_from([1, 8, 16])
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_blocks_of_a_flipped_image_are_the_flipped_blocks(dtype, points, block):
    sample = inside_sample(points, width=48, height=32)
    flipped = flip(sample)
    before, after = (
        block_counts(torch.tensor(each.points, dtype=dtype), height=32, width=48, block=block)
        for each in (sample, flipped)
    )
    assert_close(after, before.flip(-1))
    assert (flipped.image == sample.image[:, ::-1]).all()


def test_flipping_by_hand():
    sample = sample_of([(0, 1), (3, 1), (3.25, 1), (7.75, 1)], width=8, height=2)
    just_below = 1 / 1024
    assert flip(sample).points[:, 0].tolist() == [8 - just_below, 5 - just_below, 4.75, 0.25]
    assert pixels_of(flip(sample))[:, 0].tolist() == [7, 4, 4, 0]


@given(st.lists(st.tuples(coordinates(40), coordinates(40)), max_size=20))
def test_flipping_twice_is_not_flipping(points):
    sample = inside_sample(points, width=40, height=40)
    twice = flip(flip(sample))
    assert np.allclose(twice.points, sample.points, atol=2e-3)
    assert (pixels_of(twice) == pixels_of(sample)).all()


@given(annotated(), st.integers(1, 64), seeds)
def test_any_image_gives_a_crop_with_its_heads_inside(image, size, seed):
    points, width, height = image
    sample = sample_of(points, width=width, height=height)
    before = sample.image.copy(), sample.points.copy()
    cut = augment(sample, size=size, config=EVERYTHING, rng=np.random.default_rng(seed))
    assert cut.image.shape == (size, size, 3)
    assert cut.image.dtype == np.uint8
    assert cut.name == "crowd"
    assert ((cut.points >= 0) & (cut.points < size)).all()
    assert len(cut.points) <= len(points)
    assert (sample.image == before[0]).all()
    assert (sample.points == before[1]).all()


@given(annotated(), seeds)
def test_looks_change_no_head(image, seed):
    points, width, height = image
    sample = sample_of(points, width=width, height=height)
    side = min(width, height)
    looks = replace(EVERYTHING, scale_min=1.0, scale_max=1.0, flip_probability=0.0)
    plain, changed = (
        augment(sample, size=side, config=config, rng=np.random.default_rng(seed))
        for config in (PLAIN, looks)
    )
    assert (changed.points == plain.points).all()


def test_all_randomness_comes_from_the_generator():
    sample = sample_of([(5, 5), (40, 30)], width=80, height=60)
    np.random.seed(0)
    cv2.setRNGSeed(0)
    first = augment(sample, size=32, config=EVERYTHING, rng=np.random.default_rng(7))
    np.random.seed(1)
    cv2.setRNGSeed(1)
    again = augment(sample, size=32, config=EVERYTHING, rng=np.random.default_rng(7))
    other = augment(sample, size=32, config=EVERYTHING, rng=np.random.default_rng(8))
    assert (first.image == again.image).all()
    assert (first.points == again.points).all()
    assert (first.image != other.image).any()


def test_nothing_random_but_the_place_is_a_plain_crop():
    sample = sample_of([(5.5, 5.25)], width=20, height=20)
    cut = augment(sample, size=20, config=PLAIN, rng=np.random.default_rng(0))
    assert (cut.image == sample.image).all()
    assert cut.points.tolist() == [[5.5, 5.25]]
    cut.image[:] = 0
    assert sample.image.any()


def test_zooms_are_spread_evenly_in_the_logarithm():
    # Heads every 4 pixels: how far apart they are in the crop tells its zoom.
    grid = np.stack(np.meshgrid(*[np.arange(0.5, 200, 4)] * 2), axis=-1)
    sample = sample_of(grid.reshape(-1, 2), width=200, height=200)
    config = replace(PLAIN, scale_min=0.5, scale_max=2.0)
    logs = []
    for seed in range(400):
        points = augment(sample, size=32, config=config, rng=np.random.default_rng(seed)).points
        logs.append(math.log2(np.diff(np.unique(points[:, 0].round(6))).min() / 4))
    assert -1.001 <= min(logs) < -0.95
    assert 0.95 < max(logs) <= 1.001
    # Drawn evenly in the factor itself, the mean would be near 0.25.
    assert abs(np.mean(logs)) < 0.08


@pytest.mark.parametrize(("width", "height"), [(40, 400), (400, 40), (3, 5), (1, 1)])
def test_an_image_too_small_for_the_crop_is_enlarged_to_its_short_side(width, height):
    # Each pixel carries a head: the crop holds those of a square as wide as the short side.
    short = min(width, height)
    heads = [(x + 0.5, y + 0.5) for x in range(width) for y in range(height)]
    config = replace(PLAIN, scale_min=0.5, scale_max=0.5)
    cut = augment(
        sample_of(heads, width=width, height=height),
        size=64,
        config=config,
        rng=np.random.default_rng(0),
    )
    assert len(cut.points) == short**2
    expected = (np.arange(short) + 0.5) * 64 / short
    assert np.unique(cut.points[:, 0].round(9)) == pytest.approx(expected)
    assert np.unique(cut.points[:, 1].round(9)) == pytest.approx(expected)


def test_every_place_of_an_image_is_cut():
    columns, rows = np.meshgrid(np.arange(6), np.arange(4))
    where = np.stack([columns, rows, rows], axis=-1).astype(np.uint8)
    sample = replace(sample_of([], width=6, height=4), image=where)
    crops = [
        augment(sample, size=2, config=PLAIN, rng=np.random.default_rng(seed)).image
        for seed in range(200)
    ]
    corners = {(int(image[0, 0, 0]), int(image[0, 0, 1])) for image in crops}
    assert corners == {(left, top) for left in range(5) for top in range(3)}


def test_a_grey_image_has_equal_channels_and_keeps_its_light():
    sample = sample_of([], width=64, height=64)
    config = replace(PLAIN, grey_probability=1.0)
    grey = augment(sample, size=64, config=config, rng=np.random.default_rng(0)).image
    assert (grey[..., :1] == grey).all()
    expected = sample.image @ [0.299, 0.587, 0.114]
    assert np.abs(grey[..., 0] - expected).max() <= 1


@given(seeds)
def test_colours_of_a_grey_image_stay_grey(seed):
    # Saturation and hue act around the grey axis: they must not tint what has no colour.
    sample = sample_of([], width=32, height=32)
    grey = replace(sample, image=sample.image[..., :1].repeat(3, axis=2))
    config = replace(PLAIN, colour_probability=1.0, saturation=1.0, hue=180.0)
    image = augment(grey, size=32, config=config, rng=np.random.default_rng(seed)).image
    assert np.ptp(image.astype(int), axis=2).max() <= 1


@pytest.mark.parametrize(
    ("strength", "measure"),
    [
        ("brightness", lambda image: image.mean()),
        ("contrast", lambda image: image.std()),
        ("saturation", lambda image: np.ptp(image, axis=2).mean()),
    ],
)
def test_a_strength_is_the_largest_relative_change(strength, measure):
    sample = sample_of([], width=48, height=48)
    sample = replace(sample, image=(sample.image // 4 + 80).astype(np.uint8))
    off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    config = replace(PLAIN, colour_probability=1.0, **(off | {strength: 0.3}))
    before = measure(sample.image.astype(float))
    ratios = [
        measure(
            augment(sample, size=48, config=config, rng=np.random.default_rng(seed)).image.astype(
                float
            )
        )
        / before
        for seed in range(60)
    ]
    assert 0.68 < min(ratios) < 0.8
    assert 1.2 < max(ratios) < 1.32


@given(seeds)
def test_contrast_spreads_around_the_mean_grey_at_any_brightness(seed):
    # Brightness alone decides the mean, whatever the other changes do.
    sample = sample_of([], width=32, height=32)
    sample = replace(sample, image=sample.image[..., :1].repeat(3, axis=2) // 4 + 80)
    config = replace(PLAIN, colour_probability=1.0)
    means = [
        augment(sample, size=32, config=each, rng=np.random.default_rng(seed)).image.mean()
        for each in (config, replace(config, contrast=0.0))
    ]
    assert means[0] == pytest.approx(means[1], abs=0.6)


@pytest.mark.parametrize("step", ["blur", "noise", "jpeg"])
def test_each_loss_of_detail_changes_the_image_and_keeps_its_mean(step):
    sample = sample_of([], width=64, height=64)
    sample = replace(sample, image=cv2.GaussianBlur(sample.image, (0, 0), 2))
    config = replace(PLAIN, **{f"{step}_probability": 1.0})
    image = augment(sample, size=64, config=config, rng=np.random.default_rng(1)).image
    assert (image != sample.image).any()
    assert np.abs(image.astype(float).mean(axis=(0, 1)) - sample.image.mean(axis=(0, 1))).max() < 2


def test_jpeg_keeps_red_red():
    red = replace(
        sample_of([], width=64, height=64),
        image=np.full((64, 64, 3), (200, 30, 60), dtype=np.uint8),
    )
    config = replace(PLAIN, jpeg_probability=1.0)
    image = augment(red, size=64, config=config, rng=np.random.default_rng(0)).image
    assert np.abs(image.astype(int) - [200, 30, 60]).max() < 8


@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_a_probability_is_from_0_to_1(name, value):
    with pytest.raises(ConfigError, match=rf"^augment\.{name}: "):
        AugmentConfig(**{name: value})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("brightness", 1.5),
        ("contrast", -0.1),
        ("saturation", math.nan),
        ("blur_sigma", 0.0),
        ("noise_sigma", math.inf),
        ("scale_min", 0.0),
        ("scale_min", 3.0),
        ("hue", 200.0),
        ("jpeg_quality", 0),
        ("jpeg_quality", 96),
    ],
)
def test_a_strength_out_of_its_range_is_refused_by_name(setting, value):
    with pytest.raises(ConfigError, match=rf"^augment\.{setting}: "):
        AugmentConfig(**{setting: value})


def test_a_head_without_a_place_is_refused():
    with pytest.raises(ValueError, match="finite"):
        crop(sample_of([(math.nan, 1)], width=8, height=8), left=0, top=0, side=8, size=8)


@pytest.mark.parametrize(("left", "top", "side"), [(-1, 0, 4), (0, 5, 4), (0, 0, 9), (0, 0, 0)])
def test_a_crop_outside_the_image_is_refused(left, top, side):
    with pytest.raises(ValueError, match="not inside"):
        crop(sample_of([], width=8, height=8), left=left, top=top, side=side, size=8)
