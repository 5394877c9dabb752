"""The smallest things that learn, for tests of training."""

import torch
from torch import Tensor, nn

from crowdcount.core.types import Batch, BlockPrediction, LossTerms, block_target
from crowdcount.training.config import TrainConfig
from crowdcount.training.loop import fit
from crowdcount.training.optimiser import OptimConfig
from crowdcount.training.schedule import ScheduleConfig
from crowdcount.training.state import Learner

CPU = torch.device("cpu")


class MeanModel(nn.Module):
    """Counts every block of 8 pixels alike: the simplest thing that can learn."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> BlockPrediction:
        batch, _, height, width = images.shape
        counts = self.level.expand(batch, 1, height // 8, width // 8)
        return BlockPrediction(logits=counts.expand(-1, 2, -1, -1), counts=counts)


class ConvModel(nn.Module):
    """Reads its images, forgets some of it, and has what models have: an encoder, norms, biases."""

    def __init__(self, *, norm: bool = True, dropout: float = 0.5) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 6, 8, stride=8),
            nn.BatchNorm2d(6) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.prompt_tokens = nn.Parameter(torch.randn(2, 6) / 10)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, images: Tensor) -> BlockPrediction:
        features = self.encoder(images) + self.prompt_tokens.mean(dim=0)[:, None, None]
        logits = self.head(features)
        return BlockPrediction(logits=logits, counts=logits.softmax(dim=1)[:, 1:] * 3)


def squared(prediction, target):
    """Mean squared error of the blocks, and nothing else."""
    error = (prediction.counts - target.counts).square().mean()
    return LossTerms(total=error, classification=error * 0, count=error)


def some_batch(*names: str, seed: int = 0, side: int = 16) -> Batch:
    """Random images, one for each name, with a head in each of the first four blocks."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.tensor([[1.0, 1.0], [9.0, 1.0], [1.0, 9.0], [9.0, 9.0]])
    return Batch(
        images=torch.rand(len(names), 3, side, side, generator=generator),
        target=block_target((points,) * len(names), height=side, width=side, block=8),
        names=names,
    )


class FewBatches:
    """As many batches an epoch as asked for, of two images, other ones in every epoch."""

    def __init__(self, steps: int = 2) -> None:
        self.steps = steps
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.steps

    def epoch(self, number, *, skip=0):
        self.asked.append(number)
        for step in range(skip, self.steps):
            yield some_batch(f"{number}-{step}-a", f"{number}-{step}-b", seed=100 * number + step)


def learner(model, *, optim=None, **train):
    """A learner of ``model`` with these settings of ``train``."""
    return Learner(
        model, train=TrainConfig(**train), optim=optim or OptimConfig(lr=0.05), device=CPU
    )


def run(learning, batches, *, criterion=squared, optim=None, schedule=None, options=None, **train):
    """All reports of :func:`fit` with these settings of ``train``."""
    return list(
        fit(
            learning,
            criterion,
            batches,
            train=TrainConfig(**train),
            optim=optim or OptimConfig(lr=0.05),
            schedule=schedule or ScheduleConfig(),
            **(options or {}),
        )
    )
