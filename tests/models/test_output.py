"""ZIP's two heads, joined to the bins that every model speaks of."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from crowdcount.core.bins import Bins, expected_counts
from crowdcount.errors import ConfigError
from crowdcount.models.block_counter import zero_inflated
from crowdcount.models.build import build_model
from crowdcount.models.clip_ebc import bin_prompts
from crowdcount.models.config import ModelConfig
from crowdcount.models.ebc import classification_head

BINS = Bins(block=8, starts=(0, 1, 2, 4), values=(0.0, 1.0, 2.3, 4.6))
COARSE = Bins(block=8, starts=(0, 2), values=(0.1, 2.3))


@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 3.0, 100.0]))
def test_the_expectation_over_the_bins_is_the_density_of_zip(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    occupancy = torch.randn(2, 2, 3, 5, generator=generator) * scale
    filled = torch.randn(2, 3, 3, 5, generator=generator) * scale
    rate = torch.einsum("bkrc,k->brc", filled.softmax(dim=1), torch.tensor(BINS.values[1:]))
    density = occupancy.softmax(dim=1)[:, 1] * rate
    logits = zero_inflated(occupancy, filled)
    assert_close(logits.exp().sum(dim=1), torch.ones(2, 3, 5))
    assert_close(logits.exp()[:, 0], occupancy.softmax(dim=1)[:, 0])
    assert_close(expected_counts(logits, torch.tensor(BINS.values))[:, 0], density)


def test_half_precision_is_joined_in_float32():
    occupancy, filled = torch.randn(1, 2, 3, 3).bfloat16(), torch.randn(1, 3, 3, 3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = zero_inflated(occupancy, filled)
    assert_close(logits, zero_inflated(occupancy.float(), filled.float()))


def test_an_untrained_zip_head_starts_where_the_ebc_head_starts():
    ebc, zip_ = (classification_head(16, BINS, kind=kind)[-1].bias for kind in ("ebc", "zip"))
    bias = zip_.reshape(1, -1, 1, 1)
    joined = zero_inflated(bias[:, :2], bias[:, 2:]).flatten()
    assert_close(joined, ebc.log_softmax(dim=0))


def test_clip_reads_one_sentence_more():
    sentences = {
        (head, style): bin_prompts(ModelConfig(head=head, prompts=style), BINS)
        for head in ("ebc", "zip")
        for style in ("words", "digits")
    }
    assert sentences["ebc", "words"] == (
        "There is no person.",
        "There is one person.",
        "There are between two and three people.",
        "There are more than four people.",
    )
    for style, occupied in (
        ("words", "There is at least one person."),
        ("digits", "There is at least 1 person."),
    ):
        first, *others = sentences["ebc", style]
        assert sentences["zip", style] == (first, occupied, *others)


@pytest.mark.parametrize("backbone", ["clip-rn50", "timm:test_resnet"])
def test_bins_without_one_for_empty_blocks_are_refused(backbone):
    config = ModelConfig(backbone=backbone, head="zip", pretrained="none")
    with pytest.raises(ConfigError, match=r"^model\.head: zip needs .* the first bin is 0-1"):
        build_model(config, COARSE)
    assert build_model(ModelConfig(backbone="timm:test_resnet", pretrained="none"), COARSE)


def test_each_clip_head_is_compared_with_its_own_sentences():
    torch.manual_seed(0)
    model = build_model(ModelConfig(head="zip", pretrained="none"), BINS).eval()
    assert (len(model.occupancy_features), len(model.text_features)) == (2, 3)
    images = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        before = model(images).logits
        model.occupancy_features.copy_(model.occupancy_features.flip(0))
        after = model(images).logits
    # Empty and occupied trade places; among the occupied bins nothing changes.
    assert_close(after[:, 0].exp(), 1 - before[:, 0].exp(), rtol=1e-3, atol=1e-4)
    assert_close(after[:, 1:].log_softmax(dim=1), before[:, 1:].log_softmax(dim=1))
