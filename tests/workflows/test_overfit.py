"""A set-up that can learn is told from one that cannot."""

import dataclasses

import pytest
import torch

from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.errors import DivergedError, UsageError
from crowdcount.workflows.overfit import COUNT_ERROR, LOSS_SHARE, OverfitResult, overfit
from crowdcount.workflows.preprocess import preprocess
from tests.tiny_run import tiny_config

GOOD = {"optim.lr": 0.03, "train.epochs": 60, "train.crop": 128}


@pytest.fixture(scope="module")
def data(scenes, tmp_path_factory):
    (result,) = preprocess(scenes, out=tmp_path_factory.mktemp("overfit") / "square")
    return PreparedDataset.open(result.folder)


def learned(data, *, crops=2, **changes):
    settings = tiny_config(**{key.replace(".", "__"): value for key, value in changes.items()})
    return overfit(settings, [data], crops=crops, device="cpu")


@pytest.fixture(scope="module")
def good(data):
    return learned(data, **GOOD)


def test_a_set_up_that_can_learn_learns_its_crops(good):
    assert good.failures == ()
    assert good.crops == 2
    assert good.heads >= 2
    assert good.steps == 60
    assert good.loss_after < LOSS_SHARE * good.loss_before
    assert good.count_error_after < COUNT_ERROR < good.count_error_before


def test_it_comes_out_the_same_again_whatever_was_drawn_before(data):
    first = learned(data, **GOOD | {"train.epochs": 3})
    torch.rand(7)
    assert learned(data, **GOOD | {"train.epochs": 3}) == first


def test_crops_are_counted_as_images_are(data):
    settings = GOOD | {"train.epochs": 1}
    whole = learned(data, **settings)
    windows = learned(data, **settings | {"model.window": 64})
    assert windows.loss_after == whole.loss_after
    assert windows.count_error_after != whole.count_error_after


def test_one_whose_steps_are_too_small_does_not(data):
    loss, counts = learned(data, **GOOD | {"optim.lr": 1e-9, "train.epochs": 3}).failures
    assert loss.startswith("the loss fell from")
    assert counts.startswith("counts are")


def test_one_whose_steps_are_far_too_large_diverges(data):
    with pytest.raises(DivergedError):
        learned(data, **GOOD | {"optim.lr": 1e30})


def test_each_threshold_fails_alone(good):
    worse = {"loss_after": 0.26 * good.loss_before, "count_error_after": 0.21}
    for name, value in worse.items():
        assert len(dataclasses.replace(good, **{name: value}).failures) == 1
    assert len(dataclasses.replace(good, **worse).failures) == 2


def test_a_result_that_is_not_a_number_fails():
    nan = float("nan")
    nothing = OverfitResult(
        crops=1,
        heads=1,
        steps=1,
        loss_before=1.0,
        loss_after=nan,
        count_error_before=1.0,
        count_error_after=nan,
    )
    assert len(nothing.failures) == 2


def test_passes_are_those_asked_for_but_not_endless(data, monkeypatch):
    assert learned(data, **{"train.epochs": 3, "train.batch_size": 1}).steps == 6
    monkeypatch.setattr("crowdcount.workflows.overfit.MOST_PASSES", 4)
    assert learned(data, crops=1, **{"train.epochs": 9999}).steps == 4


def test_more_crops_than_images_are_refused(data):
    with pytest.raises(UsageError, match="there are 7 training images"):
        learned(data, crops=8)


def test_crops_without_any_head_are_refused(data, monkeypatch):
    class Empty:
        def __init__(self, data):
            self.images = [data[0].sample(each) for each in data[0].records("train")]

        def __len__(self):
            return len(self.images)

        def __getitem__(self, index):
            sample = self.images[index]
            return dataclasses.replace(sample, points=sample.points[:0])

    monkeypatch.setattr("crowdcount.workflows.overfit.TrainingSamples", Empty)
    with pytest.raises(UsageError, match="no crop holds a head"):
        learned(data)
