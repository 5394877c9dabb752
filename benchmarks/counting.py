"""How long a loaded counter takes for an image of 1024 x 768 pixels, by threads.

python -m benchmarks.counting [--checkpoint starter] [--repeat 15] [--hand-back]

Pixels of any content take as long as others. What is timed is a whole count of pixels in memory,
from the working size to the sum over the blocks, in a process that keeps freed memory, as that of
the command line does; --hand-back leaves it to the allocator, as a program that imports crowdcount.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from crowdcount.core.device import keep_freed_memory
from crowdcount.workflows.counter import load


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="starter")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--hand-back", action="store_true")
    options = parser.parse_args()
    if not options.hand_back:
        keep_freed_memory()
    began = time.perf_counter()
    counter = load(options.checkpoint, device="cpu")
    print(f"loaded in {time.perf_counter() - began:.2f} s\n")
    image = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)
    print("| threads | median s | min | max |\n|---|---|---|---|")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        seconds = [once(lambda: counter.count(image)) for _ in range(options.repeat + 2)][2:]
        numbers = (statistics.median(seconds), min(seconds), max(seconds))
        print(f"| {threads} | " + " | ".join(f"{number:.3f}" for number in numbers) + " |")


def once(count: Callable[[], object]) -> float:
    began = time.perf_counter()
    count()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
