"""A step does what its settings say, in pieces, clipped and in any precision, or is refused."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdcount.core.bins import Bins
from crowdcount.core.precision import PRECISIONS
from crowdcount.core.types import Batch, BlockPrediction, LossTerms, block_target
from crowdcount.errors import DivergedError
from crowdcount.losses.classification import CLASSIFICATION_LOSSES
from crowdcount.losses.count import COUNT_LOSSES
from crowdcount.training.divergence import Evidence
from crowdcount.training.randomness import restore_random_states
from crowdcount.training.step import take_step
from tests.toy_training import CPU, ConvModel, MeanModel, learner, some_batch, squared

FIVE = some_batch("a", "b", "c", "d", "e", seed=3)


def gradient_descent(model):
    """A learner whose step is its gradient, so that gradients can be read from weights."""
    learning = learner(model)
    learning.optimiser = torch.optim.SGD(
        [{"params": list(model.parameters()), "lr_scale": 1.0}], lr=1.0
    )
    return learning


@given(st.integers(1, 5))
def test_pieces_give_the_step_of_the_whole_batch(pieces):
    torch.manual_seed(1)
    model = ConvModel(norm=False, dropout=0.0)
    one, other = gradient_descent(copy.deepcopy(model)), gradient_descent(copy.deepcopy(model))
    whole = take_step(one, squared, FIVE, lr=0.5)
    parts = take_step(other, squared, FIVE, lr=0.5, accumulate=pieces)
    assert parts.total == pytest.approx(whole.total, rel=1e-5)
    assert parts.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-4)
    for name, tensor in one.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)
        assert not torch.equal(tensor, model.state_dict()[name]), name


def scenes(images):
    """So many images of 48 pixels, each with other heads, the first without any."""
    generator = torch.Generator().manual_seed(images)
    points = tuple(48 * torch.rand(3 * n, 2, generator=generator) for n in range(images))
    return Batch(
        images=torch.rand(images, 3, 48, 48, generator=generator),
        target=block_target(points, height=48, width=48, block=8),
        names=tuple(map(str, range(images))),
    )


@pytest.mark.parametrize("name", [*CLASSIFICATION_LOSSES, *COUNT_LOSSES])
@settings(max_examples=10)
@given(images=st.integers(2, 6), pieces=st.integers(2, 6))
def test_no_term_of_the_loss_depends_on_the_pieces_of_a_batch(name, images, pieces):
    bins = Bins(block=8, starts=(0, 1), values=(0.0, 1.5))

    def criterion(prediction, target):
        if name in COUNT_LOSSES:
            term = COUNT_LOSSES[name](prediction.counts, target)
        else:
            term = CLASSIFICATION_LOSSES[name](prediction.logits, target.counts, bins)
        return LossTerms(total=term, classification=term, count=term)

    torch.manual_seed(4)
    model = ConvModel(norm=False, dropout=0.0)
    gradients = []
    for accumulate in (1, pieces):
        learning = learner(copy.deepcopy(model))
        take_step(learning, criterion, scenes(images), lr=0.0, accumulate=accumulate)
        gradients.append(torch.cat([each.grad.flatten() for each in learning.model.parameters()]))
    whole, parts = gradients
    assert whole.any()
    assert (parts - whole).norm() < 1e-4 * whole.norm()


def test_pieces_are_what_goes_through_the_network():
    sizes = []
    model = ConvModel()
    model.register_forward_hook(lambda module, images, result: sizes.append(len(images[0])))
    take_step(learner(model), squared, FIVE, lr=0.1, accumulate=3)
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(("clip_norm", "expected"), [(None, 2.0), (0.5, 0.5), (10.0, 2.0)])
def test_a_long_gradient_is_shortened(clip_norm, expected):
    # The mean square of 0 - 1 has a gradient of -2.
    learning = gradient_descent(MeanModel())
    result = take_step(learning, squared, FIVE, lr=1.0, clip_norm=clip_norm)
    assert learning.model.level.item() == pytest.approx(expected, rel=1e-5)
    assert result.gradient_norm == pytest.approx(2.0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_network_computes_in_its_precision_and_the_loss_in_float32(precision):
    inside, outside = [], []

    def criterion(prediction, target):
        matrix = torch.rand(2, 2)
        outside.append((prediction.logits.dtype, prediction.counts.dtype, (matrix @ matrix).dtype))
        return squared(prediction, target)

    model = ConvModel()
    model.head.register_forward_hook(lambda module, given, result: inside.append(result.dtype))
    learning = learner(model, precision=precision)
    take_step(learning, criterion, FIVE, lr=0.1)
    assert inside == [PRECISIONS[precision]]
    assert outside == [(torch.float32,) * 3]
    assert {each.dtype for each in model.parameters()} == {torch.float32}
    assert learning.scaler.is_enabled() == (precision == "fp16")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_learns_in_every_precision(precision):
    torch.manual_seed(2)
    learning = learner(ConvModel(dropout=0.0), precision=precision)
    losses = [take_step(learning, squared, FIVE, lr=0.05).total for _ in range(40)]
    assert losses[-1] < losses[0] / 10


def test_a_gradient_too_large_for_float16_is_left_out_and_scaled_less():
    learning = learner(ConvModel(dropout=0.0), precision="fp16")
    before = copy.deepcopy(dict(learning.model.named_parameters()))
    scale = learning.scaler.get_scale()

    def steep(prediction, target):
        error = squared(prediction, target).total * 100
        return LossTerms(total=error, classification=error, count=error)

    results = [take_step(learning, steep, FIVE, lr=0.05)]
    assert results[0].skipped
    assert all(torch.equal(before[name], now) for name, now in learning.model.named_parameters())
    assert learning.scaler.get_scale() < scale
    while results[-1].skipped:
        results.append(take_step(learning, steep, FIVE, lr=0.05))
    assert len(results) < 20


def broken_count(prediction, target):
    terms = squared(prediction, target)
    count = terms.count / 0 * 0
    return LossTerms(total=terms.total + count, classification=terms.total, count=count)


def steep_root(prediction, target):
    """Finite, with a gradient that is not: the root of nothing."""
    error = (prediction.counts - prediction.counts.detach()).square().sum().sqrt()
    return LossTerms(total=error, classification=error, count=error)


def steps_until_refused(learning, criterion, batch):
    """One step; in float16 as many as it takes the scale of the loss to give up."""
    for _ in range(40):
        take_step(learning, criterion, batch, lr=0.1)


class Overflowing(ConvModel):
    def forward(self, images):
        prediction = super().forward(images)
        return BlockPrediction(logits=prediction.logits * torch.inf, counts=prediction.counts)


@pytest.mark.parametrize(
    ("model", "criterion", "broke"),
    [
        (ConvModel, broken_count, "the term count is not finite: total nan, classification"),
        (ConvModel, steep_root, "the loss is finite, its gradient is not: total 0"),
        (Overflowing, squared, "the prediction of the network is not finite"),
    ],
)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_that_is_not_finite_says_what_broke_and_can_be_taken_again(
    model, criterion, broke, precision, tmp_path
):
    learning = learner(model(), precision=precision)
    before = copy.deepcopy(dict(learning.model.named_parameters()))
    with pytest.raises(DivergedError) as caught:
        steps_until_refused(learning, criterion, FIVE)
    message = str(caught.value)
    assert "step 1 (epoch 1)" in message
    assert broke in message
    assert "the batch was a, b, c, d, e" in message
    assert all(torch.equal(before[name], now) for name, now in learning.model.named_parameters())

    caught.value.evidence.save(tmp_path / "diverged.pt")
    evidence = Evidence.load(tmp_path / "diverged.pt")
    again = learner(model(), precision=precision)
    again.model.load_state_dict(evidence.model)
    restore_random_states(evidence.random, CPU)
    with pytest.raises(DivergedError) as repeated:
        steps_until_refused(again, criterion, evidence.batch)
    assert str(repeated.value) == message


def test_evidence_has_the_dropout_of_its_step(tmp_path):
    learning = learner(ConvModel(dropout=0.5))
    seen = []

    def criterion(prediction, target):
        seen.append(prediction.logits.detach())
        return broken_count(prediction, target)

    with pytest.raises(DivergedError) as caught:
        take_step(learning, criterion, FIVE, lr=0.1)
    restore_random_states(caught.value.evidence.random, CPU)
    with pytest.raises(DivergedError):
        take_step(learning, criterion, FIVE, lr=0.1)
    with pytest.raises(DivergedError):
        take_step(learning, criterion, FIVE, lr=0.1)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
