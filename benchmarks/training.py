"""Where the time of training goes: waiting for data, forward, loss, backward with the update.

python -m benchmarks.training --data data/sha [--threads 2] [--workers N] [--images 64]

Every row is a set-up, trained from random weights by the loop that ``crowdcount train`` uses. The
first epoch is a warm-up, in which images are decoded and kept; the second is measured. Each row has
its own process, so that none inherits another's memory.
"""

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from crowdcount.config import load_run_config
from crowdcount.core.types import BlockPrediction, BlockTarget, LossTerms
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.losses.dace import dace_loss
from crowdcount.training.loop import fit
from crowdcount.training.state import Learner
from crowdcount.workflows.bins import training_bins
from crowdcount.workflows.plan import (
    TrainingSamples,
    first_model,
    plan_training,
    training_batches,
)

LITE0 = {"preset": "lite0"}
SETUPS: dict[str, dict[str, Any]] = {
    "lite0, dm": LITE0 | {"set": {"loss.count": "dm"}},
    "lite0, multiscale": LITE0 | {"set": {"loss.count": "multiscale"}},
    "lite0, zip": LITE0 | {"set": {"model.head": "zip", "loss.classification": "zip"}},
    "clip-rn50, dm": {"set": {"model.backbone": "clip-rn50"}},
}
FEWER = {"clip-rn50, dm": 16}
"""Images of an epoch, where 64 take too long."""


class FirstImages:
    """Some of the training images."""

    def __init__(self, samples: Any, number: int) -> None:
        self.samples, self.number = samples, min(number, len(samples))

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def measure(name: str, options: argparse.Namespace) -> None:
    """Train one set-up for two epochs and print the row of the second."""
    torch.set_num_threads(options.threads)
    overrides = SETUPS[name]["set"] | {"model.pretrained": "none", "train.epochs": 2}
    if options.workers is not None:
        overrides["train.workers"] = options.workers
    config = load_run_config(preset=SETUPS[name].get("preset"), overrides=[*overrides.items()])
    data = [PreparedDataset.open(options.data)]
    bins = training_bins(data, block=config.model.block, chosen=config.model.bins, write=False)
    model = first_model(config, bins, init=None, offline=True).to(memory_format=torch.channels_last)
    learner = Learner(model, train=config.train, optim=config.optim, device=torch.device("cpu"))
    seconds = {"forward": 0.0, "loss": 0.0}
    began = {}

    def before(*_: Any) -> None:
        began["forward"] = time.perf_counter()

    def after(*_: Any) -> None:
        seconds["forward"] += time.perf_counter() - began["forward"]

    model.register_forward_pre_hook(before)
    model.register_forward_hook(after)

    def criterion(prediction: BlockPrediction, target: BlockTarget) -> LossTerms:
        start = time.perf_counter()
        terms = dace_loss(prediction, target, bins=model.bins, config=config.loss)
        seconds["loss"] += time.perf_counter() - start
        return terms

    with tempfile.TemporaryDirectory() as folder:
        samples = TrainingSamples(data).cached("memory", directory=Path(folder))
        images = FirstImages(samples, FEWER.get(name, options.images))
        batches = training_batches(plan_training(config, data), images)
        for report in fit(
            learner,
            criterion,
            batches,
            train=config.train,
            optim=config.optim,
            schedule=config.schedule,
        ):
            shares = {"waiting": report.waiting} | {
                part: spent / report.seconds for part, spent in seconds.items()
            }
            seconds.update(forward=0.0, loss=0.0)
    rest = 1 - sum(shares.values())
    numbers = [report.images_per_second, *(100 * each for each in (*shares.values(), rest))]
    print(f"| {name} | " + " | ".join(f"{number:.1f}" for number in numbers) + " |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--only", choices=SETUPS, action="append")
    options = parser.parse_args()
    print("| set-up | images/s | % waiting | % forward | % loss | % backward, update |")
    print("|---|---|---|---|---|---|")
    for name in options.only or SETUPS:
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(name, options))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
