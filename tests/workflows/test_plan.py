"""What a run is going to take is worked out without taking it."""

import dataclasses

import pytest

from crowdcount.core.bins import Bins
from crowdcount.models.build import empty_model
from crowdcount.workflows.plan import estimate_run
from tests.tiny_run import tiny_config

BINS = Bins(block=8, starts=(0, 1, 2), values=(0.0, 1.0, 2.5))


def settings(**train):
    changes = {f"train__{name}": value for name, value in train.items()}
    return tiny_config(**{"train__epochs": 5} | changes)


def test_sizes_are_those_of_the_run(prepared):
    found = estimate_run(settings(), [prepared], bins=BINS)
    model = empty_model(settings().model, BINS)
    numbers = sum(each.numel() for each in model.parameters())
    assert found.parameters == found.trained_parameters == numbers
    assert found.plan.training_images == 7
    assert (found.steps_per_epoch, found.steps) == (2, 10)
    assert found.memory.gradients == 4 * numbers
    assert found.memory.optimiser == 8 * numbers
    assert found.memory.average == 0


def test_several_crops_of_an_image_make_more_steps(prepared):
    assert estimate_run(settings(crops_per_image=3), [prepared], bins=BINS).steps_per_epoch == 6


def test_nothing_is_written(prepared):
    files = set(prepared.folder.rglob("*"))
    found = estimate_run(settings(), [prepared])
    assert set(prepared.folder.rglob("*")) == files
    assert found.parameters != estimate_run(settings(), [prepared], bins=BINS).parameters


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"batch_size": 8}, 2),
        ({"crop": 128}, 4),
        ({"accumulate": 4}, 1 / 4),
        ({"precision": "bf16"}, 1 / 2),
    ],
)
def test_what_is_kept_grows_with_what_is_seen_at_once(prepared, changes, factor):
    before = estimate_run(settings(), [prepared], bins=BINS).memory
    after = estimate_run(settings(**changes), [prepared], bins=BINS).memory
    assert after.activations == pytest.approx(factor * before.activations, rel=0.1)
    assert dataclasses.replace(after, activations=before.activations) == before
    assert before.total - before.activations == after.total - after.activations


def test_an_average_takes_as_much_as_the_weights(prepared):
    found = estimate_run(settings(ema_decay=0.9), [prepared], bins=BINS).memory
    assert found.average == found.weights > 0
