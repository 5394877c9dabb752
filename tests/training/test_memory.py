"""When memory runs out, the error says which batch to try."""

import pytest
import torch

from crowdcount.errors import MemoryExhaustedError
from crowdcount.training.config import TrainConfig
from crowdcount.training.memory import explained_memory, peak_memory
from tests.toy_training import FewBatches, MeanModel, learner, run, some_batch

BATCH = some_batch("a", "b", "c", side=64)
TOO_MUCH = 2**50


def exhausted(error, **settings):
    with (
        pytest.raises(MemoryExhaustedError) as caught,
        explained_memory(BATCH, step=7, train=TrainConfig(**settings)),
    ):
        raise error
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"batch_size": 8}, "--batch-size 4, or --set train.accumulate=2, which keeps"),
        ({"batch_size": 5}, "--batch-size 2, or --set train.accumulate=3, which keeps"),
        ({"batch_size": 8, "accumulate": 3}, "--batch-size 1, or --set train.accumulate=8"),
        ({"batch_size": 2}, "--batch-size 1, or --set train.accumulate=2"),
        ({"batch_size": 1}, "smaller crops (--set train.crop=32)"),
        ({"batch_size": 4, "accumulate": 4}, "smaller crops (--set train.crop=32)"),
    ],
)
def test_says_which_batch_to_try(settings, advice):
    message = exhausted(torch.OutOfMemoryError("CUDA out of memory. Tried ..."), **settings)
    assert "out of memory at step 7: 3 crops of 64x64 pixels" in message
    assert advice in message


def test_knows_the_allocator_of_the_cpu():
    def greedy(prediction, target):
        return torch.empty(TOO_MUCH)

    with pytest.raises(MemoryExhaustedError, match="can't allocate memory"):
        run(learner(MeanModel()), FewBatches(), criterion=greedy, epochs=1)


def test_other_errors_are_as_they_were():
    with (
        pytest.raises(RuntimeError, match="shapes"),
        explained_memory(BATCH, step=1, train=TrainConfig()),
    ):
        raise RuntimeError("shapes do not fit")


def test_the_peak_grows_by_what_is_used_and_does_not_fall():
    before = peak_memory(torch.device("cpu"))
    # More than the peak so far, so that it must move.
    used = torch.ones(before // 4 + 2**24)
    during = peak_memory(torch.device("cpu"))
    assert during > before
    del used
    assert peak_memory(torch.device("cpu")) >= during
