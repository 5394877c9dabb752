"""How long CLIP's backbones take for 1024 x 768 pixels, beside the published arrangement.

python -m benchmarks.backbones [--threads 2] [--repeat 5] [--size 1024 768]

Random weights. ``clip-vit-b-16`` counts in windows of 224 pixels, 20 of them at this size. The
published arrangement is float32 with tensors in the usual order of memory; ours has channels last.
The rows of a backbone take turns, so that a busy machine slows all of them.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from crowdcount.core.bins import Bins
from crowdcount.models.build import build_model
from crowdcount.models.config import ModelConfig
from crowdcount.workflows.counter import make_ready, whole_image_model

BINS = Bins(block=8, starts=(0, 1, 2, 3, 4), values=(0.0, 1.0, 2.0, 3.0, 4.3))


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """One way to compute a backbone."""

    decoder: str = "paper"
    channels_last: bool = True
    bfloat16: bool = False
    target: float | None = None
    """Share of the published arrangement's time that it should take."""

    def __str__(self) -> str:
        numbers = "bf16" if self.bfloat16 else "fp32"
        return f"{self.decoder}, {numbers}{', channels last' if self.channels_last else ''}"


PUBLISHED = Arrangement(channels_last=False)
ROWS = {
    "clip-rn50": (
        PUBLISHED,
        Arrangement(target=0.8),
        Arrangement(bfloat16=True, target=0.4),
        Arrangement(decoder="slim", bfloat16=True, target=0.1),
    ),
    "clip-vit-b-16": (
        PUBLISHED,
        Arrangement(bfloat16=True, target=0.4),
        Arrangement(decoder="slim", bfloat16=True),
    ),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 768), help="width, height")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| backbone | arrangement | median s | min | max | of published | target |")
    print("|---|---|---|---|---|---|---|")
    for backbone, rows in ROWS.items():
        counters = [counter(backbone, row, *options.size) for row in rows]
        turns = [[once(each) for each in counters] for _ in range(options.repeat + 1)][1:]
        seconds = [list(each) for each in zip(*turns, strict=True)]
        whole = statistics.median(seconds[0])
        for row, each in zip(rows, seconds, strict=True):
            middle = statistics.median(each)
            times = f"{middle:.2f} | {min(each):.2f} | {max(each):.2f} | {middle / whole:.2f}"
            target = "" if row.target is None else row.target
            print(f"| {backbone} | {row} | {times} | {target} |", flush=True)


def counter(backbone: str, row: Arrangement, width: int, height: int) -> Callable[[], float]:
    """What counts an image of this size in this arrangement."""
    torch.manual_seed(0)
    config = ModelConfig(backbone=backbone, pretrained="none", decoder=row.decoder)
    model = build_model(config, BINS).eval()
    images = torch.rand(1, 3, height, width)
    precision = "bf16" if row.bfloat16 else "fp32"
    if row.channels_last:
        make_ready(model, precision=precision)
    whole = whole_image_model(model, precision=precision)

    @torch.inference_mode()
    def count() -> float:
        return float(whole(images).counts.sum())

    return count


def once(count: Callable[[], float]) -> float:
    began = time.perf_counter()
    count()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
