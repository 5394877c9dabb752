import math
from dataclasses import asdict, fields, replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from crowdcount.core.blocks import head_pixels
from crowdcount.core.image import Sample
from crowdcount.core.types import block_counts
from crowdcount.data.training.augment import (
    CHAINS,
    AugmentConfig,
    augment,
    crop,
    flip,
    no_augmentation,
)
from crowdcount.data.training.batches import TrainingCrops
from crowdcount.errors import ConfigError

PROBABILITIES = [field.name for field in fields(AugmentConfig) if "probability" in field.name]
PLAIN = no_augmentation()
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
    return head_pixels(sample.points, height=height, width=width)


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


def squares(left, top, side, split):
    """The square itself, or its four quarters, each split on as ``split`` says."""
    if side % 2 or not next(split, False):
        return [(left, top, side)]
    half = side // 2
    corners = [(left + x, top + y) for x in (0, half) for y in (0, half)]
    return [each for x, y in corners for each in squares(x, y, half, split)]


@given(
    st.lists(st.tuples(coordinates(96), coordinates(64)), max_size=20),
    st.lists(st.booleans(), max_size=40),
    st.integers(1, 64),
)
def test_the_crops_of_any_partition_into_squares_share_out_the_heads(points, split, size):
    sample = sample_of(points, width=96, height=64)
    rest = iter(split)
    corners = [(left, top) for left in range(0, 96, 32) for top in range(0, 64, 32)]
    parts = [square for left, top in corners for square in squares(left, top, 32, rest)]
    assert sum(side**2 for _, _, side in parts) == 96 * 64
    cuts = [crop(sample, left=left, top=top, side=side, size=size) for left, top, side in parts]
    assert sum(len(cut.points) for cut in cuts) == len(points)


@given(annotated(), st.data(), st.integers(1, 200))
def test_a_zoomed_head_is_on_the_pixel_that_exact_arithmetic_says(image, data, size):
    points, side, _ = image
    sample = inside_sample(points, width=side, height=side)
    zoomed = crop(sample, left=0, top=0, side=side, size=size)
    # The far end of the last pixel is held inside; all others move exactly.
    far = side - Fraction(1, 1024)
    exact = [
        [math.floor(min(Fraction(each), far) * size / side) for each in point]
        for point in sample.points.tolist()
    ]
    assert pixels_of(zoomed).tolist() == exact


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


@given(annotated(), st.data(), seeds)
def test_every_head_is_on_the_pixel_it_was_on(image, data, seed):
    points, width, height = image
    sample = sample_of(points, width=width, height=height)
    # Each pixel says where it lies.
    sample.image[..., 0], sample.image[..., 1] = np.arange(width), np.arange(height)[:, None]
    size = data.draw(st.integers(1, min(width, height)))
    config = replace(PLAIN, flip_probability=0.5)
    cut = augment(sample, size=size, config=config, rng=np.random.default_rng(seed))
    under = [cut.image[y, x, :2].tolist() for x, y in pixels_of(cut).tolist()]
    window = cut.image[..., :2].reshape(-1, 2).tolist()
    assert under == [pixel for pixel in pixels_of(sample).tolist() if pixel in window]


@pytest.mark.parametrize("chain", CHAINS)
@given(annotated(), st.integers(1, 64), seeds)
def test_the_looks_of_a_chain_change_no_head(chain, image, size, seed):
    points, width, height = image
    sample = sample_of(points, width=width, height=height)
    # Zoom and flip are drawn first, so they are the same in both.
    off = dict.fromkeys(set(PROBABILITIES) - {"zoom_probability", "flip_probability"}, 0.0)
    plain, changed = (
        augment(sample, size=size, config=config, rng=np.random.default_rng(seed))
        for config in (AugmentConfig(chain=chain, **off), AugmentConfig(chain=chain))
    )
    assert (changed.points == plain.points).all()


@given(annotated(), seeds)
def test_looks_change_no_head(image, seed):
    points, width, height = image
    sample = sample_of(points, width=width, height=height)
    side = min(width, height)
    looks = replace(EVERYTHING, zoom_probability=0.0, flip_probability=0.0)
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


@pytest.mark.parametrize("chain", CHAINS)
def test_a_crop_depends_on_seed_epoch_index_and_number_alone(chain):
    samples = [sample_of([(5, 5), (40, 30)], width=80, height=60, seed=each) for each in range(3)]

    def crops(seed=3):
        config = AugmentConfig(chain=chain)
        return TrainingCrops(samples, size=32, config=config, seed=seed)

    keys = [(epoch, index, crop) for epoch in (1, 2) for index in range(3) for crop in (0, 1)]
    forth, back = crops(), crops()
    first = {key: forth[key] for key in keys}
    again = {key: back[key] for key in reversed(keys)}
    for key in keys:
        assert (first[key].image == again[key].image).all()
        assert (first[key].points == again[key].points).all()
        assert (crops(seed=4)[key].image != first[key].image).any()
    assert (first[1, 0, 0].image != first[2, 0, 0].image).any()
    assert (first[1, 0, 0].image != first[1, 0, 1].image).any()


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
    config = replace(PLAIN, zoom_probability=1.0, scale_min=0.5, scale_max=2.0)
    logs = np.log2(zooms(sample, config))
    assert -1.001 <= min(logs) < -0.95
    assert 0.95 < max(logs) <= 1.001
    # Drawn evenly in the factor itself, the mean would be near 0.25.
    assert abs(np.mean(logs)) < 0.08


def zooms(sample, config):
    """The zoom of many crops of 32 pixels, of heads that are 4 pixels apart."""
    crops = (
        augment(sample, size=32, config=config, rng=np.random.default_rng(seed))
        for seed in range(1000)
    )
    return np.array([np.diff(np.unique(cut.points[:, 0].round(6))).min() / 4 for cut in crops])


def test_a_crop_that_is_not_zoomed_has_the_pixels_of_its_image():
    sample = sample_of([], width=64, height=48)
    windows = np.lib.stride_tricks.sliding_window_view(sample.image, (32, 32, 3))[:, :, 0]
    config = replace(PLAIN, zoom_probability=0.3, scale_min=1.2, scale_max=1.4)
    crops = (
        augment(sample, size=32, config=config, rng=np.random.default_rng(seed)).image
        for seed in range(400)
    )
    as_it_is = [(windows == each).all(axis=(2, 3, 4)).any() for each in crops]
    assert np.mean(as_it_is) == pytest.approx(0.7, abs=0.07)


def test_the_published_crops_are_of_one_to_two_times_their_side_spread_evenly():
    grid = np.stack(np.meshgrid(*[np.arange(0.5, 200, 4)] * 2), axis=-1)
    sample = sample_of(grid.reshape(-1, 2), width=200, height=200)
    sides = 1 / zooms(sample, AugmentConfig(chain="published"))
    assert 0.999 <= min(sides) < 1.03
    assert 1.97 < max(sides) <= 2.001
    # Drawn evenly in the logarithm, the mean would be near 1.44 and the share below 1.25 near 0.32.
    assert np.mean(sides) == pytest.approx(1.5, abs=0.05)
    assert np.mean(sides < 1.25) == pytest.approx(0.25, abs=0.07)


def test_what_is_too_fine_for_the_crop_becomes_grey():
    # Bicubic without antialiasing would see single squares of the board.
    board = (np.indices((90, 90)).sum(axis=0) % 2 * 255).astype(np.uint8)
    sample = replace(sample_of([], width=90, height=90), image=np.stack([board] * 3, axis=-1))
    small = crop(sample, left=0, top=0, side=90, size=40).image
    assert np.abs(small.astype(int) - 127).max() < 24


@pytest.mark.parametrize(("width", "height"), [(40, 400), (400, 40), (3, 5), (1, 1)])
def test_an_image_too_small_for_the_crop_is_enlarged_to_its_short_side(width, height):
    # Each pixel carries a head: the crop holds those of a square as wide as the short side.
    short = min(width, height)
    heads = [(x + 0.5, y + 0.5) for x in range(width) for y in range(height)]
    config = replace(PLAIN, zoom_probability=1.0, scale_min=0.5, scale_max=0.5)
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


@pytest.mark.parametrize("draw", ["centre", "corner"])
def test_every_place_of_an_image_is_cut(draw):
    columns, rows = np.meshgrid(np.arange(6), np.arange(4))
    where = np.stack([columns, rows, rows], axis=-1).astype(np.uint8)
    sample = replace(sample_of([], width=6, height=4), image=where)
    crops = [
        augment(
            sample,
            size=2,
            config=replace(PLAIN, place_draw=draw),
            rng=np.random.default_rng(seed),
        ).image
        for seed in range(200)
    ]
    corners = {(int(image[0, 0, 0]), int(image[0, 0, 1])) for image in crops}
    assert corners == {(left, top) for left in range(5) for top in range(3)}


@pytest.mark.parametrize(("draw", "outermost"), [("centre", 1 / 8), ("corner", 1 / 49)])
def test_how_often_the_edge_of_an_image_is_seen(draw, outermost):
    sample = sample_of([], width=64, height=16)
    sample.image[:] = np.arange(64, dtype=np.uint8)[None, :, None]
    config = replace(PLAIN, place_draw=draw)
    crops = [
        augment(sample, size=16, config=config, rng=np.random.default_rng(seed)).image
        for seed in range(3000)
    ]
    seen = np.bincount(np.concatenate([image[0, :, 0] for image in crops]), minlength=64) / 3000
    assert seen[[0, 63]] == pytest.approx(outermost, abs=0.02)
    middle = seen[28:36].mean()
    assert middle == pytest.approx(1 / 4 if draw == "centre" else 16 / 49, abs=0.02)


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


@pytest.mark.parametrize("chain", CHAINS)
def test_blur_is_as_wide_in_one_direction_as_in_the_other_and_no_box(chain):
    # The published blur was a vertical box of five pixels.
    dot = np.zeros((41, 41, 3), dtype=np.uint8)
    dot[20, 20] = 255
    sample = replace(sample_of([], width=41, height=41), image=dot)
    limit = AugmentConfig(chain=chain).resolved().blur_sigma
    config = replace(PLAIN, blur_probability=1.0, blur_sigma=limit)
    widest = 0.0
    for seed in range(40):
        spread = augment(sample, size=41, config=config, rng=np.random.default_rng(seed)).image
        light = spread[..., 0].astype(float)
        assert (light == light.T).all()
        assert (light == light[::-1]).all()
        row = light[20, 20:]
        assert (np.diff(row[row > 0]) < 0).all()
        along = light.sum(axis=0) / light.sum()
        widest = max(widest, math.sqrt(along @ (np.arange(41) - 20.0) ** 2))
    assert widest == pytest.approx(limit, rel=0.12)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5])
def test_salt_and_pepper_take_their_share_and_touch_nothing_else(share):
    sample = sample_of([], width=200, height=200)
    sample = replace(sample, image=np.full_like(sample.image, 100))
    config = replace(PLAIN, salt_pepper_probability=1.0, salt_pepper=share)
    image = augment(sample, size=200, config=config, rng=np.random.default_rng(1)).image
    values = sample.image.size
    # Six standard deviations of a binomial count.
    off = 6 * math.sqrt(values * share)
    assert (image == 255).sum() == pytest.approx(values * share, abs=off)
    assert (image == 0).sum() == pytest.approx(values * share, abs=off)
    assert set(np.unique(image)) <= {0, 100, 255}
    # Channels of their own, as in the published code: not only whole pixels.
    assert (np.ptp(image, axis=2) > 0).any()


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


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_decides_every_setting_that_is_not_given(chain):
    assert asdict(AugmentConfig(chain=chain).resolved()) == {"chain": chain, **CHAINS[chain]}
    assert set(CHAINS[chain]) == {each.name for each in fields(AugmentConfig)} - {"chain"}
    for name, value in CHAINS["wide" if chain == "published" else "published"].items():
        given_one = asdict(AugmentConfig(chain=chain, **{name: value}).resolved())
        assert given_one == {"chain": chain, **CHAINS[chain], name: value}


def test_the_published_chain_is_what_was_published():
    config = AugmentConfig(chain="published").resolved()
    assert config.zoom_probability == 1
    assert (config.scale_min, config.scale_max, config.scale_draw) == (0.5, 1.0, "side")
    assert config.flip_probability == 0.5
    assert config.colour_probability == 0.2
    assert (config.brightness, config.contrast, config.saturation, config.hue) == (0.1, 0.1, 0.1, 0)
    assert config.place_draw == "corner"
    assert config.blur_probability == 0.2
    assert (config.salt_pepper_probability, config.salt_pepper) == (0.5, 0.001)
    assert config.grey_probability == config.noise_probability == config.jpeg_probability == 0


CHANGES = {
    "scale_min": 0.3,
    "scale_max": 3.0,
    "scale_draw": "side",
    "place_draw": "centre",
    "brightness": 0.9,
    "contrast": 0.9,
    "saturation": 0.9,
    "hue": 90.0,
    "blur_sigma": 6.0,
    "noise_sigma": 50.0,
    "salt_pepper": 0.2,
    "jpeg_quality": 5,
    **dict.fromkeys(PROBABILITIES, 0.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_acts(name):
    assert set(CHANGES) == set(CHAINS["wide"])
    sample = sample_of([], width=90, height=90)
    # What has no colour does not show what else happens to colours.
    base = replace(EVERYTHING, grey_probability=float(name == "grey_probability"))
    images = [
        [
            augment(sample, size=24, config=config, rng=np.random.default_rng(seed)).image
            for seed in range(4)
        ]
        for config in (base, replace(base, **{name: CHANGES[name]}))
    ]
    assert any((before != after).any() for before, after in zip(*images, strict=True))


@pytest.mark.parametrize("setting", ["chain", "scale_draw", "place_draw"])
def test_an_unknown_name_is_refused_with_those_there_are(setting):
    message = rf"^augment\.{setting}: expected \w+ or \w+( or none)?, got 'wild'"
    with pytest.raises(ConfigError, match=message):
        AugmentConfig(**{setting: "wild"})


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
        ("salt_pepper", 0.0),
        ("salt_pepper", 0.6),
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


@given(seed=seeds)
def test_without_augmentation_a_crop_is_a_piece_of_its_image(seed):
    sample = sample_of([(20.5, 11.25)], width=48, height=40)
    found = augment(sample, size=32, config=no_augmentation(), rng=np.random.default_rng(seed))
    windows = np.lib.stride_tricks.sliding_window_view(sample.image, (32, 32, 3))[:, :, 0]
    tops, lefts = np.nonzero((windows == found.image).all(axis=(2, 3, 4)))
    assert len(tops) == 1
    assert found.points.tolist() == [[20.5 - lefts[0], 11.25 - tops[0]]]
