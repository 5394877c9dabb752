"""Every classification term, whatever its name; then ZIP's against its formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from crowdcount.core.bins import Bins
from crowdcount.errors import ConfigError
from crowdcount.losses.classification import (
    CLASSIFICATION_LOSSES,
    cross_entropy,
    zero_inflated_poisson,
)

BINS = Bins(block=8, starts=(0, 1, 2, 4), values=(0.0, 1.0, 2.3, 4.7))


def example(seed: int = 0, *, scale: float = 1.0, images: int = 2) -> tuple[Tensor, Tensor]:
    """Logits, and counts of which a half is 0 and some are beyond the last bin's start."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, 4, 3, 5, generator=generator) * scale
    counts = torch.randint(-6, 7, (images, 1, 3, 5), generator=generator).clamp(min=0).float()
    return logits, counts


def published_zip(logits: Tensor, counts: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """The published formulas, in float64, from the two heads of which the logits are made."""
    probabilities = logits.double().softmax(dim=1)
    empty = probabilities[:, 0]
    occupied = 1 - empty
    filled = logits.double()[:, 1:].softmax(dim=1)
    rate = sum(filled[:, k] * BINS.values[k + 1] for k in range(3))
    heads = counts.double().squeeze(1)
    zero = -torch.log(empty + occupied * torch.exp(-rate) + epsilon)
    more = -torch.log(occupied + epsilon) + rate - heads * torch.log(rate + epsilon)
    likelihood = torch.where(heads == 0, zero, more).sum() / len(counts)
    classification = torch.zeros((), dtype=torch.float64)
    for image, row, col in (heads > 0).nonzero().tolist():
        count = heads[image, row, col].item()
        which = max(k for k, start in enumerate(BINS.starts) if start <= count) - 1
        classification -= filled[image, which, row, col].log() / len(counts)
    return likelihood + classification


@pytest.mark.parametrize("name", CLASSIFICATION_LOSSES)
class TestEveryClassificationLoss:
    @pytest.mark.parametrize("scale", [0.0, 1.0, 50.0, 300.0])
    @pytest.mark.parametrize("heads", [0.0, 1.0, 5000.0])
    def test_value_and_gradient_are_finite(self, name, scale, heads):
        logits, counts = example(scale=scale)
        leaf = logits.requires_grad_()
        value = CLASSIFICATION_LOSSES[name](leaf, torch.full_like(counts, heads), BINS)
        value.backward()
        assert value.isfinite()
        assert leaf.grad.isfinite().all()

    def test_is_summed_over_blocks_and_averaged_over_images(self, name):
        loss = CLASSIFICATION_LOSSES[name]
        logits, counts = example()
        whole = loss(logits, counts, BINS)
        images = [loss(logits[i : i + 1], counts[i : i + 1], BINS) for i in range(2)]
        assert_close(whole, (images[0] + images[1]) / 2)
        halves = [
            loss(logits[..., part], counts[..., part].contiguous(), BINS)
            for part in (slice(None, 2), slice(2, None))
        ]
        assert_close(whole, halves[0] + halves[1])

    def test_the_order_of_images_means_nothing(self, name):
        logits, counts = example()
        value = CLASSIFICATION_LOSSES[name](logits.flip(0), counts.flip(0), BINS)
        assert_close(value, CLASSIFICATION_LOSSES[name](logits, counts, BINS))

    def test_adding_the_same_to_all_logits_changes_nothing(self, name):
        logits, counts = example()
        value = CLASSIFICATION_LOSSES[name](logits + 7, counts, BINS)
        assert_close(value, CLASSIFICATION_LOSSES[name](logits, counts, BINS))

    def test_gradients_agree_with_differences(self, name):
        logits, counts = example()
        leaf = logits.double().requires_grad_()
        loss = CLASSIFICATION_LOSSES[name]
        assert torch.autograd.gradcheck(lambda x: loss(x, counts.double(), BINS), (leaf,))

    def test_autocast_changes_nothing(self, name):
        logits, counts = example()
        expected = CLASSIFICATION_LOSSES[name](logits, counts, BINS)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = CLASSIFICATION_LOSSES[name](logits, counts, BINS)
        assert_close(value, expected)

    def test_a_descent_finds_the_true_bins(self, name):
        counts = torch.tensor([0.0, 1.0, 3.0, 0.0]).view(1, 1, 2, 2)
        logits = torch.zeros(1, 4, 2, 2, requires_grad=True)
        optimiser = torch.optim.Adam([logits], lr=0.3)
        for _ in range(100):
            optimiser.zero_grad()
            CLASSIFICATION_LOSSES[name](logits, counts, BINS).backward()
            optimiser.step()
        assert logits.argmax(dim=1).flatten().tolist() == [0, 1, 2, 0]


@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 1.0]))
def test_zip_is_what_was_published(seed, scale):
    logits, counts = example(seed, scale=scale)
    value = zero_inflated_poisson(logits, counts, BINS)
    assert_close(value.double(), published_zip(logits, counts), rtol=1e-4, atol=1e-4)


@given(seed=st.integers(0, 2**31))
def test_zip_of_models_that_are_sure_leaves_out_the_published_epsilon(seed):
    logits, counts = example(seed, scale=5.0)
    value = zero_inflated_poisson(logits, counts, BINS)
    exact = published_zip(logits, counts, epsilon=0.0)
    assert_close(value.double(), exact, rtol=1e-4, atol=1e-4)


def test_zip_by_hand():
    # Even logits over four bins: p0 = 1/4, p1 = 3/4, rate (1 + 2.3 + 4.7) / 3 = 8/3.
    logits, rate = torch.zeros(1, 4, 1, 1), 8 / 3
    empty = zero_inflated_poisson(logits, torch.zeros(1, 1, 1, 1), BINS)
    assert empty.item() == pytest.approx(-math.log(0.25 + 0.75 * math.exp(-rate)), rel=1e-5)
    three = zero_inflated_poisson(logits, torch.full((1, 1, 1, 1), 3.0), BINS)
    expected = -math.log(0.75) + rate - 3 * math.log(rate) + math.log(3)
    assert three.item() == pytest.approx(expected, rel=1e-5)
    assert cross_entropy(logits, torch.zeros(1, 1, 1, 1), BINS).item() == pytest.approx(math.log(4))


def test_a_block_wrongly_taken_for_certainly_empty_can_still_learn():
    # The published 1e-8 inside the logarithm leaves no gradient here.
    logits = torch.tensor([60.0, 0.0, 0.0, 0.0]).view(1, 4, 1, 1).requires_grad_()
    zero_inflated_poisson(logits, torch.full((1, 1, 1, 1), 1.0), BINS).backward()
    assert logits.grad[0, 0, 0, 0].item() == pytest.approx(1.0, rel=1e-3)


def test_zip_refuses_bins_without_one_for_empty_blocks():
    bins = Bins(block=8, starts=(0, 2), values=(0.2, 2.5))
    with pytest.raises(ConfigError, match=r"^loss\.classification: zip needs .* is 0-1$"):
        zero_inflated_poisson(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, 1), bins)
