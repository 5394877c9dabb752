"""The training loss: equal to the published one on its fixtures, and each setting acts."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from crowdcount.core.bins import Bins, expected_counts
from crowdcount.core.settings import choices_of, field_type
from crowdcount.core.types import BlockPrediction, BlockTarget, LossTerms, block_target
from crowdcount.errors import ConfigError
from crowdcount.losses.classification import CLASSIFICATION_LOSSES
from crowdcount.losses.count import (
    COUNT_LOSSES,
    BayesianConfig,
    MultiscaleConfig,
    bayesian,
    multiscale,
)
from crowdcount.losses.dace import DaceConfig, dace_loss

BINS = Bins(block=8, starts=(0, 1, 2, 3, 4), values=(0.0, 1.0, 2.0, 3.0, 4.29992))
CASES = ["mixed_224", "dense_448", "empty_224"]
PUBLISHED_NAME = {"dm": "dmcount", "mae": "mae", "mse": "mse"}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[1] / "golden" / "losses.seed11.npz") as arrays:
        return dict(arrays)


def published_target(golden: dict[str, np.ndarray], case: str) -> BlockTarget:
    """As the published code sees it: duplicates collapsed in the counts, not in N."""
    counts = torch.from_numpy(golden[f"{case}.target_counts"])
    points = tuple(torch.from_numpy(golden[f"{case}.points.{i}"]) for i in range(len(counts)))
    heads = torch.tensor([float(len(each)) for each in points])
    return BlockTarget(counts=counts, points=points, heads=heads, block=8)


def predict(logits: Tensor) -> BlockPrediction:
    return BlockPrediction(logits=logits, counts=expected_counts(logits, torch.tensor(BINS.values)))


def scored(
    logits: Tensor, target: BlockTarget, config: DaceConfig
) -> tuple[LossTerms, Tensor, Tensor]:
    """The terms, and the gradients of the total with respect to logits and predicted counts."""
    logits = logits.clone().requires_grad_()
    prediction = predict(logits)
    prediction.counts.retain_grad()
    terms = dace_loss(prediction, target, BINS, config)
    terms.total.backward()
    assert logits.grad is not None
    assert prediction.counts.grad is not None
    return terms, logits.grad, prediction.counts.grad


def crowded(heads: int = 60, images: int = 2) -> tuple[Tensor, BlockTarget]:
    """Random logits for two crops with blocks of more than four heads."""
    generator = torch.Generator().manual_seed(4)
    points = tuple(20 * torch.rand(heads, 2, generator=generator) for _ in range(images))
    target = block_target(points, height=40, width=48, block=8)
    assert target.counts.max() > BINS.max_count
    return torch.randn(images, 5, 5, 6, generator=generator), target


class TestPublishedFixtures:
    @pytest.mark.parametrize("name", PUBLISHED_NAME)
    @pytest.mark.parametrize("case", CASES)
    def test_values(self, golden, case, name):
        logits = torch.from_numpy(golden[f"{case}.logits"])
        prefix = f"{case}.{PUBLISHED_NAME[name]}"
        terms = dace_loss(
            predict(logits), published_target(golden, case), BINS, DaceConfig(count=name)
        )
        if name == "dm":
            count = golden[f"{prefix}.count_loss"] + 0.01 * golden[f"{prefix}.tv_loss"]
        else:
            count = golden[f"{prefix}.{name}_loss"]
        assert terms.classification.item() == pytest.approx(golden[f"{prefix}.ce_loss"], rel=1e-4)
        assert terms.count.item() == pytest.approx(count, rel=1e-4)
        assert terms.total.item() == pytest.approx(golden[f"{prefix}.total"], rel=1e-4)

    @pytest.mark.parametrize("name", PUBLISHED_NAME)
    @pytest.mark.parametrize("case", CASES)
    def test_gradients(self, golden, case, name):
        logits = torch.from_numpy(golden[f"{case}.logits"])
        prefix = f"{case}.{PUBLISHED_NAME[name]}"
        _, by_logits, by_counts = scored(
            logits, published_target(golden, case), DaceConfig(count=name)
        )
        expected = torch.from_numpy(golden[f"{prefix}.grad_logits"])
        assert_close(by_logits, expected, rtol=1e-3, atol=5e-5)
        if name == "dm":
            expected = torch.from_numpy(golden[f"{prefix}.grad_density"])
            assert_close(by_counts, expected, rtol=1e-3, atol=5e-5)


def test_hand_calculation():
    # One block, uniform over 5 bins: CE = ln 5. Expected heads 10.29992 / 5, truth 1.
    target = block_target((torch.tensor([[3.0, 3.0]]),), height=8, width=8, block=8)
    terms = dace_loss(
        predict(torch.zeros(1, 5, 1, 1)), target, BINS, DaceConfig(count="mae", count_weight=0.5)
    )
    miscount = 10.29992 / 5 - 1
    assert_close(terms.classification, torch.tensor(math.log(5)))
    assert_close(terms.count, torch.tensor(miscount))
    assert_close(terms.total, torch.tensor(math.log(5) + miscount / 2))


def test_classification_is_summed_over_blocks_and_averaged_over_the_batch():
    logits, target = crowded(images=2)
    config = DaceConfig(count="mae")
    both = dace_loss(predict(logits), target, BINS, config).classification
    halves = [
        dace_loss(
            predict(logits[i : i + 1]),
            dataclasses.replace(
                target,
                counts=target.counts[i : i + 1],
                points=target.points[i : i + 1],
                heads=target.heads[i : i + 1],
            ),
            BINS,
            config,
        ).classification
        for i in range(2)
    ]
    assert_close(both, (halves[0] + halves[1]) / 2)
    classes = BINS.classify(target.counts).squeeze(1)
    chosen = logits.log_softmax(dim=1).gather(1, classes.unsqueeze(1))
    assert_close(both, -chosen.sum() / 2)


def test_the_weight_scales_the_count_term_and_nothing_else():
    logits, target = crowded()
    none, thrice = (
        dace_loss(predict(logits), target, BINS, DaceConfig(count_weight=weight))
        for weight in (0.0, 3.0)
    )
    assert_close(none.total, none.classification)
    assert_close(thrice.total, thrice.classification + 3 * thrice.count)
    assert_close(none.count, thrice.count)


@pytest.mark.parametrize("name", COUNT_LOSSES)
def test_corrected_counts_are_what_the_count_term_compares_with(name):
    logits, target = crowded()
    by_hand = target.counts.clamp(max=4)
    clamped = dataclasses.replace(target, counts=by_hand, heads=by_hand.sum(dim=(1, 2, 3)))
    raw = DaceConfig(count=name)
    corrected = DaceConfig(count=name, count_target="corrected")
    terms = dace_loss(predict(logits), target, BINS, corrected)
    assert_close(terms, dace_loss(predict(logits), clamped, BINS, raw), rtol=0, atol=0)
    on_raw = dace_loss(predict(logits), target, BINS, raw)
    assert_close(terms.classification, on_raw.classification)
    assert (terms.count - on_raw.count).abs() > 1


@pytest.mark.parametrize("classification", CLASSIFICATION_LOSSES)
@pytest.mark.parametrize("name", COUNT_LOSSES)
@pytest.mark.parametrize("count_target", ["raw", "corrected"])
def test_empty_images_give_finite_terms_and_gradients(classification, name, count_target):
    config = DaceConfig(classification=classification, count=name, count_target=count_target)
    target = block_target((torch.zeros(0, 2),) * 2, height=40, width=48, block=8)
    for logits in (torch.randn(2, 5, 5, 6), torch.tensor([200.0, 0, 0, 0, 0])[:, None, None]):
        terms, by_logits, by_counts = scored(logits.expand(2, 5, 5, 6), target, config)
        assert torch.isfinite(terms.total)
        assert torch.isfinite(by_logits).all()
        assert torch.isfinite(by_counts).all()


@pytest.mark.parametrize("classification", CLASSIFICATION_LOSSES)
@pytest.mark.parametrize("name", COUNT_LOSSES)
def test_bfloat16_predictions_are_scored_in_float32(classification, name):
    logits, target = crowded()
    config = DaceConfig(classification=classification, count=name)
    low = logits.bfloat16()
    expected, by_logits, _ = scored(low.float(), target, config)
    leaf = low.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = dace_loss(predict(leaf), target, BINS, config)
    terms.total.backward()
    assert terms.total.dtype == torch.float32
    assert_close(terms.total, expected.total, rtol=1e-3, atol=0)
    assert leaf.grad is not None
    assert_close(leaf.grad.float(), by_logits, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", CLASSIFICATION_LOSSES)
def test_the_chosen_classification_term_is_the_one_that_is_minimised(name):
    logits, target = crowded()
    terms, by_logits, _ = scored(logits, target, DaceConfig(classification=name, count_weight=0.0))
    leaf = logits.clone().requires_grad_()
    expected = CLASSIFICATION_LOSSES[name](leaf, target.counts, BINS)
    expected.backward()
    assert_close(terms.total, expected, rtol=0, atol=0)
    assert_close(by_logits, leaf.grad)


def test_zip_sees_corrected_counts_where_asked():
    logits, target = crowded()
    raw, corrected = (
        dace_loss(
            predict(logits), target, BINS, DaceConfig(classification="zip", count_target=which)
        ).classification
        for which in ("raw", "corrected")
    )
    assert (raw - corrected).abs() > 1


def test_each_classification_term_comes_with_the_count_term_it_was_published_with():
    assert DaceConfig().resolved().count == "dm"
    assert DaceConfig(classification="zip").resolved().count == "multiscale"
    assert DaceConfig(classification="zip", count="dm").resolved().count == "dm"


def test_the_settings_of_a_count_term_reach_it():
    logits, target = crowded()
    counts = predict(logits).counts
    cells, spread = MultiscaleConfig(cells=(6,), weights=(3.0,)), BayesianConfig(sigma=5.0)
    for config, expected in (
        (
            DaceConfig(count="multiscale", multiscale=cells),
            multiscale(counts, target, cells),
        ),
        (DaceConfig(count="bayesian", bayesian=spread), bayesian(counts, target, spread)),
    ):
        count = dace_loss(predict(logits), target, BINS, config).count
        assert_close(count, expected, rtol=0, atol=0)
        standard = dace_loss(predict(logits), target, BINS, DaceConfig(count=config.count)).count
        assert (standard - count).abs() > 0.1


def test_bfloat16_counts_are_summed_in_float32():
    # 257 in bfloat16 is 256: a sum of ones would stop growing there.
    counts = torch.ones(1, 1, 32, 32, dtype=torch.bfloat16)
    prediction = BlockPrediction(logits=torch.zeros(1, 5, 32, 32), counts=counts)
    target = block_target((torch.zeros(0, 2),), height=256, width=256, block=8)
    terms = dace_loss(prediction, target, BINS, DaceConfig())
    assert terms.count.dtype == torch.float32
    assert_close(terms.count, torch.tensor(1024.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"count": "l1"},
            "loss.count: expected auto, dm, mae, mse, multiscale or bayesian, got 'l1'",
        ),
        ({"classification": "zap"}, "got 'zap'; did you mean 'zip'?"),
        ({"count_weight": -1.0}, "loss.count_weight: expected a number of at least 0, got -1.0"),
        ({"count_weight": math.nan}, "loss.count_weight: expected a finite number"),
        (
            {"classification": "none", "count_weight": 0.0},
            "loss.count_weight: 0, and with loss.classification = none there is no other term",
        ),
        ({"count_target": "clamped"}, "loss.count_target: expected raw or corrected"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        DaceConfig(**settings)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            MultiscaleConfig,
            {"cells": (1, 0, 2)},
            r"loss\.multiscale\.cells\.1: .* at least 1, got 0",
        ),
        (MultiscaleConfig, {"cells": (1, 6)}, r"loss\.multiscale\.weights: 3 for 2 cell sides"),
        (MultiscaleConfig, {"weights": (1.0, -1.0, 1.0)}, r"loss\.multiscale\.weights\.1: "),
        (BayesianConfig, {"sigma": 0.5}, r"loss\.bayesian\.sigma: .* at least 1, got 0\.5"),
        (BayesianConfig, {"background": math.inf}, r"loss\.bayesian\.background: .* got inf"),
    ],
)
def test_settings_of_a_count_term_are_refused_by_name(kind, settings, message):
    with pytest.raises(ConfigError, match=message):
        kind(**settings)


def test_the_documentation_names_every_term():
    text = (Path(__file__).parents[2] / "docs" / "method.md").read_text(encoding="utf-8")
    for name in (*CLASSIFICATION_LOSSES, *COUNT_LOSSES):
        assert f"**`{name}`**" in text or f"| `{name}` |" in text, name


def test_every_term_is_a_choice():
    terms = choices_of(field_type(DaceConfig, ["classification"]))
    assert terms == (*CLASSIFICATION_LOSSES, "none")
    assert choices_of(field_type(DaceConfig, ["count"])) == ("auto", *COUNT_LOSSES)
