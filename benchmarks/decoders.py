"""What the slim decoder of clip-rn50 saves beside the paper's, and what it costs in error.

python -m benchmarks.decoders [--data data/sha] [--steps 300] [--crop 96] [--batch 4] [--lr 1e-3]
    [--precision bf16] [--decoders paper slim]

Both are trained from random weights with the same seed and settings for the same number of steps,
by the workflow of ``crowdcount train``, and count the held-out images. The learning rate follows
the cosine of whole epochs, which the last step cuts short. So few steps show how fast each
learns to begin with, not how well it counts in the end.
"""

import argparse
import math
import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from crowdcount.config import RunConfig
from crowdcount.core.bins import Bins
from crowdcount.core.metrics import CountMetrics, count_metrics
from crowdcount.core.precision import PRECISIONS
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.models.build import empty_model
from crowdcount.models.config import ModelConfig
from crowdcount.training.loop import EpochReport
from crowdcount.workflows.counter import load
from crowdcount.workflows.evaluate import evaluate
from crowdcount.workflows.plan import plan_training
from crowdcount.workflows.train import train

BINS = Bins(block=8, starts=(0, 1, 2, 3, 4), values=(0.0, 1.0, 2.0, 3.0, 4.3))
HEIGHT, WIDTH = 768, 1024
"""Of the image whose multiply-adds are counted, in pixels."""


class _Steps:
    """Counts and times the steps of a run, and stops it after so many."""

    def __init__(self, most: int) -> None:
        self.most, self.done, self.seconds = most, 0, 0.0

    def started(self, *, epochs: int, steps: int, done: int = 0) -> None:
        pass

    def stepped(self, loss: float) -> None:
        self.done += 1
        print(f"step {self.done} of {self.most}, loss {loss:.2f}", file=sys.stderr, flush=True)

    def finished_epoch(self, report: EpochReport, best: float | None) -> None:  # noqa: ARG002
        self.seconds += report.seconds

    def enough(self) -> bool:
        return self.done >= self.most


DECODERS = ("paper", "slim")
"""Those of CLIP's backbones."""


def settings(decoder: str, images: int, options: argparse.Namespace) -> RunConfig:
    """All settings of a run that ends before its last epoch does, so it never validates."""
    epochs = options.steps // math.ceil(images / options.batch) + 1
    return RunConfig.from_mapping(
        {
            "model": {"backbone": "clip-rn50", "pretrained": "none", "decoder": decoder},
            "optim": {"lr": options.lr},
            "train": {
                **{"epochs": epochs, "validate_every": epochs, "seed": options.seed},
                **{"batch_size": options.batch, "crop": options.crop},
                "precision": options.precision,
            },
        }
    )


def trained(config: RunConfig, data: PreparedDataset, steps: _Steps, device: str) -> CountMetrics:
    """Errors on the held-out images after training."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            config,
            [data],
            out=Path(folder) / "run",
            device=device,
            should_stop=steps.enough,
            watcher=steps,
            latest=False,
        )
        counter = load(result.checkpoint, device=device, precision=config.train.precision)
        return evaluate(counter, [data]).metrics


def billions_of_multiply_adds(config: ModelConfig) -> float:
    """Of an image of ``WIDTH`` x ``HEIGHT`` pixels."""
    with torch.device("meta"):
        model = empty_model(config, BINS).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.block_logits(torch.empty(1, 3, HEIGHT, WIDTH, device="meta"))
    return counter.get_total_flops() / 2e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/sha"), help="prepared data")
    parser.add_argument("--decoders", nargs="+", choices=DECODERS, default=DECODERS)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--crop", type=int, default=96, help="side of a crop in pixels")
    parser.add_argument("--batch", type=int, default=4, help="crops of a step")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    data = PreparedDataset.open(options.data)
    heads = [float(record.heads) for record in data.records("val")]
    print(f"| decoder | multiply-adds of {WIDTH} x {HEIGHT}, G | steps | s a step | MAE | RMSE |")
    print("|---|---|---|---|---|---|")
    for decoder in options.decoders:
        config = settings(decoder, len(data.records("train")), options)
        steps = _Steps(options.steps)
        found = trained(config, data, steps, options.device)
        cost = f"{billions_of_multiply_adds(config.model):.0f} | {steps.done}"
        errors = f"{found.mae:.1f} | {found.rmse:.1f}"
        print(f"| {decoder} | {cost} | {steps.seconds / steps.done:.2f} | {errors} |", flush=True)
    mean = plan_training(config, [data]).mean_heads
    guess = count_metrics([mean] * len(heads), heads)
    print(f"| always the training mean | | | | {guess.mae:.1f} | {guess.rmse:.1f} |")


if __name__ == "__main__":
    main()
