"""What a run is going to take is worked out without taking it."""

import dataclasses
from contextlib import nullcontext

import pytest

from crowdcount.core.bins import Bins
from crowdcount.errors import ConfigError
from crowdcount.models.build import check_weights, empty_model
from crowdcount.models.config import ModelConfig
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


@pytest.mark.parametrize(
    ("backbone", "pretrained", "reason"),
    [
        ("open-clip:ViT-B-32/openai", "auto", r"activation\n.*ViT-B-32-quickgelu/openai"),
        ("open-clip:ViT-B-32", "auto", "which weights"),
        ("timm:test_resnet", "another", "no weights 'another'"),
        ("timm:resnet18_no_such", "auto", "no model"),
        ("timm:vit_base_patch32_384", "auto", None),
        ("resnet18", "another", "no weights 'another'"),
        ("resnet18", "auto", None),
    ],
)
def test_weights_that_no_library_has_are_refused(backbone, pretrained, reason):
    config = ModelConfig(backbone=backbone, pretrained=pretrained)
    with pytest.raises(ConfigError, match=reason) if reason else nullcontext():
        check_weights(config)
    check_weights(dataclasses.replace(config, pretrained="none"))
    check_weights(dataclasses.replace(config, weights="weights.pth"))


def test_an_estimate_refuses_weights_that_the_run_refuses(prepared):
    config = tiny_config(model__pretrained="another")
    with pytest.raises(ConfigError, match="no weights 'another'"):
        estimate_run(config, [prepared])


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
