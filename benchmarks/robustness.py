"""How a counter does outside of its data: pictures without people, and worse photographs.

python -m benchmarks.robustness --checkpoint runs/latest [--data data/sha --data data/shb]

Fifty rendered pictures without people should count less than three each; the kinds called unseen
are never trained on. Over the held-out images of the data, those that validation used, the total
count should change by less than the limits when the images are made worse.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.negatives import NEGATIVES, UNSEEN, render_negative
from crowdcount.core.image import resized, scaled_size
from crowdcount.core.metrics import count_metrics
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.models.checkpoints.names import resolve_checkpoint
from crowdcount.workflows.counter import Counter, load

PICTURES = 50
"""Of the kinds in their order, again and again: the unseen ones come first."""

MOST_HEADS = 3.0
"""A picture without people counts less."""


def unchanged(image: np.ndarray) -> np.ndarray:
    return image


def grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def jpeg(image: np.ndarray) -> np.ndarray:
    _, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 20])
    return np.ascontiguousarray(cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1])


def half(image: np.ndarray) -> np.ndarray:
    width, height = scaled_size(width=image.shape[1], height=image.shape[0], scale=0.5)
    return resized(image, width=width, height=height)


CHANGES: Mapping[str, tuple[Callable[[np.ndarray], np.ndarray], float | None]] = {
    "as they are": (unchanged, None),
    "grey": (grey, 10.0),
    "JPEG quality 20": (jpeg, 10.0),
    "half resolution": (half, 25.0),
}
"""What is done to an image, and by how many percent the total may change."""


def negatives() -> list[tuple[str, np.ndarray]]:
    """Kind and picture of each negative, always the same."""
    kinds = [list(NEGATIVES)[number % len(NEGATIVES)] for number in range(PICTURES)]
    # Three numbers, where training sets seed their generators with two: no picture is in both.
    return [
        (kind, render_negative(kind, np.random.default_rng([0, number, 1])))
        for number, kind in enumerate(kinds)
    ]


def show_negatives(counter: Counter) -> None:
    """Print how many are counted as empty, and those that are not."""
    counts = [(kind, counter.count(picture).total) for kind, picture in negatives()]
    print(f"| pictures without people | below {MOST_HEADS:g} heads | mean | largest |")
    print("|---|---|---|---|")
    for label, unseen in (("kinds of training", False), ("unseen kinds", True)):
        heads = [count for kind, count in counts if (kind in UNSEEN) == unseen]
        below = sum(count < MOST_HEADS for count in heads)
        figures = f"{np.mean(heads):.2f} | {max(heads):.1f}"
        print(f"| {label} | {below} of {len(heads)} | {figures} |")
    wrong = sorted((each for each in counts if not each[1] < MOST_HEADS), key=lambda each: -each[1])
    for kind, count in wrong:
        print(f"{MOST_HEADS:g} heads or more: {kind}, {count:.1f}")


def held_out(folder: Path, counter: Counter) -> PreparedDataset:
    """The data with the validation images that the counter was trained with."""
    data, fold = PreparedDataset.open(folder), counter.provenance.fold
    return data if fold is None else data.with_fold(fold)


def show_changes(counter: Counter, sets: Sequence[PreparedDataset]) -> None:
    """Print a table with each data set, and with all together where there are several."""
    heads: dict[str, list[float]] = {}
    counts: dict[tuple[str, str], list[float]] = {}
    for data in sets:
        for record in data.records("val"):
            image = data.sample(record).image
            labels = [data.folder.name, "all"] if len(sets) > 1 else [data.folder.name]
            for label in labels:
                heads.setdefault(label, []).append(float(record.heads))
            for name, (change, _) in CHANGES.items():
                count = counter.count(change(image)).total
                for label in labels:
                    counts.setdefault((label, name), []).append(count)
    print("\n| held-out images | | total | change, % | limit, % | MAE |")
    print("|---|---|---|---|---|---|")
    for label in sorted(heads, key="all".__eq__):
        total = sum(counts[label, "as they are"])
        for name, (_, limit) in CHANGES.items():
            changed = counts[label, name]
            change = f"{100 * (sum(changed) / total - 1):+.1f} | {limit:g}" if limit else " | "
            mae = count_metrics(changed, heads[label]).mae
            images = f"{label}, {len(changed)}"
            print(f"| {images} | {name} | {sum(changed):.0f} | {change} | {mae:.2f} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="a checkpoint, a run or starter; else the latest run")
    parser.add_argument("--data", type=Path, action="append", default=[], help="prepared data")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    counter = load(
        resolve_checkpoint(options.checkpoint, environment=os.environ), device=options.device
    )
    show_negatives(counter)
    if options.data:
        show_changes(counter, [held_out(folder, counter) for folder in options.data])


if __name__ == "__main__":
    main()
