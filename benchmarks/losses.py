"""How long the count terms take: forward and backward, medians after a warm-up.

python -m benchmarks.losses [--runs 5] [--batch 8] [--crop 448] [--threads 2]

First ``dm`` against a straightforward implementation with the whole kernel, image after image, as
in the published code; then every count term.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor

from crowdcount.core.types import BlockTarget, block_target
from crowdcount.losses.count import COUNT_LOSSES, CountLoss, dm

BLOCK = 8
LIMITS = {100: 3, 1000: 6, 3000: 12}
"""How many times faster than the dense implementation ``dm`` has to be, by heads of an image."""


def dense_dm(counts: Tensor, target: BlockTarget) -> Tensor:
    """DM-Count as its formulas stand: an N x hw kernel for each image."""
    rows, cols = counts.shape[2:]
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    centres = torch.stack([x.flatten(), y.flatten()], dim=1) * BLOCK + BLOCK / 2
    miscount, transport, variation = [], [], []
    for predicted, true, points in zip(counts, target.counts, target.points, strict=True):
        heads, d, total = len(points), predicted.flatten(), predicted.sum()
        miscount.append((total - heads).abs())
        spread = (d / (total + 1e-8) - true.flatten() / (heads + 1e-8)).abs().sum()
        variation.append(heads * spread)
        if heads:
            transport.append(dense_transport(d, points, centres))
    count, spread = torch.stack(miscount).mean(), torch.stack(variation).mean()
    return count + 0.1 * sum(transport) + 0.01 * spread


def dense_transport(d: Tensor, points: Tensor, centres: Tensor) -> Tensor:
    """The transport term of one image."""
    with torch.no_grad():
        cost = (points[:, None] - centres).square().sum(dim=2)
        kernel = torch.exp(-cost / 10)
        total = d.sum()
        a, b = torch.full((len(points),), 1 / len(points)), d / total
        u = a
        for _ in range(100):
            v = b / (kernel.T @ u + 1e-16)
            u = a / (kernel @ v + 1e-16)
        beta = 10 * torch.log(v + 1e-16)
        gradient = (beta * total - (d * beta).sum()) / (total.square() + 1e-8)
    return (gradient * d).sum()


def crops(heads: int, *, batch: int, side: int) -> tuple[Tensor, BlockTarget]:
    """Crops with ``heads`` random heads each, and predictions of about as many."""
    generator = torch.Generator().manual_seed(heads)
    points = tuple(torch.rand(heads, 2, generator=generator) * side for _ in range(batch))
    target = block_target(points, height=side, width=side, block=BLOCK)
    counts = target.counts + torch.rand(target.counts.shape, generator=generator)
    return counts * heads / counts.sum(dim=(1, 2, 3), keepdim=True), target


def one_run(loss: CountLoss, counts: Tensor, target: BlockTarget) -> tuple[float, Tensor]:
    """Seconds of one forward and backward, and the gradient."""
    leaf = counts.clone().requires_grad_()
    started = time.perf_counter()
    loss(leaf, target).backward()
    return time.perf_counter() - started, leaf.grad


def medians(
    losses: dict[str, CountLoss], counts: Tensor, target: BlockTarget, *, runs: int
) -> dict[str, float]:
    """Median seconds of each loss after a warm-up. They take turns: the machine is never alone."""
    times: dict[str, list[float]] = {name: [] for name in losses}
    for run in range(runs + 1):
        for name, loss in losses.items():
            seconds, _ = one_run(loss, counts, target)
            if run:
                times[name].append(seconds)
    return {name: statistics.median(each) for name, each in times.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=448)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    examples = {
        heads: crops(heads, batch=options.batch, side=options.crop) for heads in (10, *LIMITS)
    }

    print(f"{'heads':<9}{'dense s':>9}{'dm s':>9}{'ratio':>9}{'at least':>10}{'difference':>12}")
    for heads, limit in LIMITS.items():
        counts, target = examples[heads]
        times = medians({"dense": dense_dm, "dm": dm}, counts, target, runs=options.runs)
        gradients = [one_run(loss, counts, target)[1] for loss in (dense_dm, dm)]
        difference = (gradients[0] - gradients[1]).abs().max().item()
        figures = f"{times['dense']:>9.3f}{times['dm']:>9.3f}{times['dense'] / times['dm']:>9.1f}"
        print(f"{heads:<9}{figures}{limit:>10}{difference:>12.1e}")

    print(f"\n{'count term':<12}" + "".join(f"{heads:>9}" for heads in examples))
    columns = [
        medians(COUNT_LOSSES, counts, target, runs=options.runs)
        for counts, target in examples.values()
    ]
    for name in COUNT_LOSSES:
        print(f"{name:<12}" + "".join(f"{column[name]:>9.4f}" for column in columns))


if __name__ == "__main__":
    main()
