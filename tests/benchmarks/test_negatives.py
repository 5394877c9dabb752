"""Rendered negatives: reproducible, of every size, unlike each other, and kept apart."""

import csv
import time

import cv2
import numpy as np
import pytest

from benchmarks.negatives import (
    FOR_TRAINING,
    NEGATIVES,
    UNSEEN,
    render_negative,
    write_negatives,
)
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.errors import UsageError
from crowdcount.workflows.bins import make_bins
from crowdcount.workflows.preprocess import preprocess

FLAT = {"black", "white"}
SMALL = (96, 160)


def picture(kind, size, *, seed=3):
    return NEGATIVES[kind](np.random.default_rng(seed), size)


@pytest.mark.parametrize("kind", NEGATIVES)
def test_a_kind_depends_on_its_generator_alone_and_fits_any_size(kind):
    for size in ((97, 131), (351, 447), (33, 512)):
        drawn = picture(kind, size)
        assert drawn.dtype == np.uint8
        assert drawn.shape == (*size, 3)
        np.testing.assert_array_equal(drawn, picture(kind, size))
    others = [picture(kind, size, seed=seed) for seed in range(12)]
    assert any(not np.array_equal(drawn, other) for other in others)


@pytest.mark.parametrize("kind", NEGATIVES)
def test_a_picture_takes_less_than_two_seconds(kind):
    started = time.process_time()
    picture(kind, (480, 640))
    assert time.process_time() - started < 2


@pytest.mark.parametrize("kind", sorted(set(NEGATIVES) - FLAT))
def test_a_picture_shows_something_and_is_neither_too_dark_nor_too_bright(kind):
    drawn = np.stack([picture(kind, (120, 160), seed=seed) for seed in range(6)]).astype(float)
    assert drawn.std(axis=(1, 2, 3)).max() > 5
    assert 5 < drawn.mean() < 230


def test_black_is_black_and_white_is_white_and_both_come_with_and_without_noise():
    for kind, low, high in (("black", 0, 12), ("white", 150, 255)):
        drawn = [picture(kind, (120, 160), seed=seed) for seed in range(8)]
        assert all(low <= each.mean() <= high for each in drawn)
        assert {each.std() == 0 for each in drawn} == {True, False}


def test_no_two_kinds_draw_the_same():
    thumbnails = [
        cv2.resize(picture(kind, (240, 320)), (32, 24)).astype(float) for kind in NEGATIVES
    ]
    for number, one in enumerate(thumbnails):
        for other in thumbnails[:number]:
            assert np.abs(one - other).mean() > 2


def test_kinds_are_for_training_or_unseen_and_the_named_ones_are_unseen():
    assert not set(UNSEEN) & set(FOR_TRAINING)
    assert not set(UNSEEN.values()) & set(FOR_TRAINING.values())
    assert set(NEGATIVES) == set(UNSEEN) | set(FOR_TRAINING)
    assert {"keyboard", "text", "brick", "white", "white noise"} <= set(UNSEEN)


def test_a_negative_has_the_size_of_a_photograph():
    shapes = {render_negative("white", np.random.default_rng(seed)).shape for seed in range(40)}
    sides = {side for shape in shapes for side in shape[:2]}
    assert len(shapes) > 20
    assert min(sides) >= 480
    assert max(sides) <= 1024


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Each kind once, and one kind again."""
    folder = tmp_path_factory.mktemp("negatives") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.negatives.SIDES", SMALL)
        write_negatives(folder, images=len(FOR_TRAINING) + 1, seed=4)
    return folder


def test_a_written_set_holds_every_kind_for_training_and_no_unseen_one(written, monkeypatch):
    monkeypatch.setattr("benchmarks.negatives.SIDES", SMALL)
    with (written / "points.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["x"], row["y"]) for row in rows} == {("", "")}
    names = [row["image"] for row in rows]
    assert sorted(names) == sorted(path.name for path in written.glob("*.jpg"))
    kinds = [name.removesuffix(".jpg").split("_", 2)[2].replace("_", " ") for name in names]
    assert kinds == [*FOR_TRAINING, next(iter(FOR_TRAINING))]
    for number, (name, kind) in enumerate(zip(names, kinds, strict=True), start=1):
        expected = render_negative(kind, np.random.default_rng([4, number]))
        image = cv2.imread(str(written / name))[..., ::-1]
        assert image.shape == expected.shape
        # JPEG is far off where pixels do not know of each other; elsewhere by a few grey levels.
        if "noise" not in kind:
            assert np.abs(image.astype(float) - expected).mean() < 12


def test_an_unseen_kind_is_never_called_for_a_written_set(tmp_path, monkeypatch):
    drawn = []

    def recorded(kind, rng):
        drawn.append(kind)
        return np.zeros((32, 32, 3), np.uint8)

    monkeypatch.setattr("benchmarks.negatives.render_negative", recorded)
    write_negatives(tmp_path / "set", images=3 * len(NEGATIVES), seed=1)
    assert set(drawn) == set(FOR_TRAINING)


def test_the_same_seed_gives_the_same_bytes_and_a_full_folder_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.negatives.SIDES", SMALL)
    for name, images, seed in (("a", 3, 5), ("b", 4, 5), ("c", 3, 6)):
        write_negatives(tmp_path / name, images=images, seed=seed)
    for path in (tmp_path / "a").iterdir():
        same = path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        assert same == (path.suffix == ".jpg")
    last = "negative_0003_blue_noise.jpg"
    assert (tmp_path / "a" / last).read_bytes() != (tmp_path / "c" / last).read_bytes()
    with pytest.raises(UsageError, match="not empty"):
        write_negatives(tmp_path / "a", images=1, seed=1)


def test_preprocess_reads_a_written_set_and_bins_take_it_beside_a_real_one(
    written, prepared, tmp_path
):
    (result,) = preprocess(written, out=tmp_path / "negatives")
    data = PreparedDataset.open(result.folder)
    records = data.all_training()
    assert len(records) == len(FOR_TRAINING) + 1
    assert all(record.heads == 0 for record in records)
    alone, both = (make_bins(sets, block=8).bins for sets in ([prepared], [prepared, data]))
    assert both.values == alone.values
