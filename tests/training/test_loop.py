"""The loop takes the steps it is told to, reports them, averages weights, and refuses NaN."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from crowdcount.core.blocks import block_target
from crowdcount.core.types import Batch, BlockPrediction
from crowdcount.errors import ConfigError, DivergedError
from crowdcount.training.loop import TrainConfig, WeightAverage, fit
from crowdcount.training.schedule import OptimConfig

CPU = torch.device("cpu")
OPTIM = OptimConfig(name="adam", lr=0.05, weight_decay=0.0)


class MeanModel(nn.Module):
    """Counts every block of 8 pixels alike: the simplest thing that can learn."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> BlockPrediction:
        batch, _, height, width = images.shape
        counts = self.level.expand(batch, 1, height // 8, width // 8)
        return BlockPrediction(logits=counts.expand(-1, 2, -1, -1), counts=counts)


@dataclass(frozen=True)
class Terms:
    total: Tensor
    classification: Tensor
    count: Tensor


def squared(prediction, target):
    error = (prediction.counts - target.counts).square().mean()
    return Terms(total=error, classification=error * 0, count=error)


class TwoBatches:
    """Two batches an epoch, one head in each of the four blocks of every image."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 2

    def epoch(self, number):
        self.asked.append(number)
        points = torch.tensor([[1.0, 1.0], [9.0, 1.0], [1.0, 9.0], [9.0, 9.0]])
        for name in ("a", "b"):
            target = block_target((points,), height=16, width=16, block=8)
            yield Batch(images=torch.zeros(1, 3, 16, 16), target=target, names=(name,))


def run(model, epochs=3, criterion=squared, **options):
    batches = TwoBatches()
    config = TrainConfig(epochs=epochs, batch_size=1)
    reports = list(fit(model, criterion, batches, train=config, optim=OPTIM, device=CPU, **options))
    return reports, batches


def test_learns_the_mean():
    model = MeanModel()
    reports, _ = run(model, epochs=60)
    assert model.level.item() == pytest.approx(1.0, abs=0.05)
    assert reports[-1].loss < reports[0].loss / 100


def test_reports_every_epoch_in_order():
    losses = []
    reports, batches = run(MeanModel(), on_step=losses.append)
    assert [report.epoch for report in reports] == batches.asked == [1, 2, 3]
    assert [report.steps for report in reports] == [2, 4, 6]
    assert all(report.complete and report.images == 2 for report in reports)
    assert len(losses) == 6
    assert reports[0].loss == pytest.approx(sum(losses[:2]) / 2)


def test_a_request_to_stop_ends_the_run_after_the_step():
    steps = []
    reports, _ = run(MeanModel(), on_step=steps.append, should_stop=lambda: len(steps) == 3)
    assert len(steps) == 3
    assert [report.complete for report in reports] == [True, False]


def test_a_loss_that_is_not_finite_names_step_image_and_term_and_spares_the_weights():
    model = MeanModel()

    def broken(prediction, target):
        terms = squared(prediction, target)
        return Terms(total=terms.total + torch.nan, classification=terms.total, count=terms.count)

    with pytest.raises(DivergedError) as caught:
        run(model, criterion=broken)
    assert "step 1 (epoch 1)" in str(caught.value)
    assert "total nan" in str(caught.value)
    assert "the batch was a" in str(caught.value)
    assert model.level.item() == 0


def test_the_average_trails_the_weights_and_forgets_the_start():
    model = MeanModel()
    average = WeightAverage(model, decay=0.9)
    levels = []
    run(
        model,
        epochs=30,
        average=average,
        on_step=lambda loss: levels.append((model.level.item(), average.module.level.item())),
    )
    rising = levels[:20]
    assert all(trailing <= current + 1e-6 for current, trailing in rising)
    assert levels[-1][1] == pytest.approx(levels[-1][0], abs=0.1)


def test_the_average_takes_batch_norm_statistics_along():
    model = nn.BatchNorm2d(1)
    average = WeightAverage(model, decay=0.5)
    for _ in range(20):
        model(torch.randn(4, 1, 5, 5) + 3)
        average.update(model)
    assert average.module.running_mean.item() == pytest.approx(model.running_mean.item(), abs=0.3)
    assert average.module.num_batches_tracked == 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"validate_every": 0},
        {"crop": 31},
        {"seed": -1},
        {"workers": -1},
        {"ema_decay": 1.0},
    ],
)
def test_nonsense_is_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=rf"train\.{next(iter(wrong))}"):
        TrainConfig(**wrong)
