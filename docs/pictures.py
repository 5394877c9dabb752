"""Draw the pictures of the documentation, all from a scene that crowdcount renders itself.

python docs/pictures.py [--checkpoint starter]

Writes ``street.jpg`` and ``pictures/`` beside this script.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

import crowdcount as cc
from crowdcount.core.image import Sample
from crowdcount.drawing.charts import bar_chart
from crowdcount.files import write_bytes
from crowdcount.scenes.scene import SceneSettings, render_scene

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"

BLOCK = 8
ENLARGED = 7
"""Factor by which the part of the crowd is enlarged."""

PART = (8, 14)
"""Rows and columns of that part, in blocks."""

COLOURS = ((86, 180, 233), (230, 159, 0), (204, 78, 92), (150, 60, 170))
"""Tints of blocks with one head, two, three, and four or more."""

CORNERS = ((4, -6), (-18, -6), (4, 20), (-18, 20))
"""Offsets of a number from the corners of its block, bottom ones first."""


def street() -> Sample:
    """Render the street, always the same scene."""
    settings = SceneSettings(
        width=960, height=640, max_heads=220, empty_fraction=0.0, smallest_head=4, largest_head=16
    )
    return render_scene(np.random.default_rng([2026, 6]), settings, name="street.jpg")


def crowd() -> Sample:
    """Render a denser crowd, in which blocks hold several heads."""
    settings = SceneSettings(
        width=960, height=640, max_heads=2500, empty_fraction=0.0, smallest_head=2, largest_head=5
    )
    return render_scene(np.random.default_rng([2026, 7]), settings, name="crowd.jpg")


def counts_of(sample: Sample) -> np.ndarray:
    """Count the heads of each block."""
    height, width = sample.image.shape[:2]
    points = torch.from_numpy(sample.points)
    return cc.block_counts(points, height=height, width=width, block=BLOCK)[0].numpy()


def blocks_picture(sample: Sample) -> np.ndarray:
    """Draw blocks, heads and classes over the densest part of a scene."""
    counts = counts_of(sample)
    rows, cols = PART
    heads = np.lib.stride_tricks.sliding_window_view(counts, PART).sum(axis=(2, 3))
    row, col = np.unravel_index(heads.argmax(), heads.shape)
    counts = counts[row : row + rows, col : col + cols]
    left, top, width, height = (BLOCK * int(each) for each in (col, row, cols, rows))
    part = sample.image[top : top + height, left : left + width]
    side = BLOCK * ENLARGED
    drawn = cv2.resize(part, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC)
    tinted = drawn.copy()
    for row, col in np.ndindex(counts.shape):
        if heads := int(counts[row, col]):
            corner = (col * side, row * side)
            opposite = (corner[0] + side, corner[1] + side)
            cv2.rectangle(tinted, corner, opposite, COLOURS[min(heads, 4) - 1], thickness=-1)
    drawn = cv2.addWeighted(tinted, 0.45, drawn, 0.55, 0)
    for at in range(0, width * ENLARGED, side):
        cv2.line(drawn, (at, 0), (at, height * ENLARGED), (255, 255, 255), 1)
    for at in range(0, height * ENLARGED, side):
        cv2.line(drawn, (0, at), (width * ENLARGED, at), (255, 255, 255), 1)
    points = sample.points - [left, top]
    points = points[((points >= 0) & (points < [width, height])).all(axis=1)] * ENLARGED
    for x, y in points:
        at = (round(x), round(y))
        cv2.circle(drawn, at, 6, (0, 0, 0), -1, cv2.LINE_AA)
        cv2.circle(drawn, at, 4, (255, 255, 0), -1, cv2.LINE_AA)
    for row, col in np.ndindex(counts.shape):
        if heads := int(counts[row, col]):
            at = place_of_number(points, left=col * side, top=row * side, side=side)
            font = (cv2.FONT_HERSHEY_SIMPLEX, 0.6)
            cv2.putText(drawn, str(heads), at, *font, (0, 0, 0), 4, cv2.LINE_AA)
            cv2.putText(drawn, str(heads), at, *font, (255, 255, 255), 2, cv2.LINE_AA)
    return drawn


def place_of_number(points: np.ndarray, *, left: int, top: int, side: int) -> tuple[int, int]:
    """Choose the corner of a block whose nearest point is farthest away: no point is covered."""
    places = [(left + dx % side, top + dy % side) for dx, dy in CORNERS]
    middles = np.add(places, (6, -7))
    distances = np.linalg.norm(points[:, None] - middles, axis=2).min(axis=0)
    return places[distances.argmax()]


def bins_picture(sample: Sample) -> bytes:
    """Draw the share of blocks, and of heads, in each class."""
    counts = counts_of(sample).astype(int).ravel()
    blocks = np.bincount(np.minimum(counts, 4), minlength=5)
    heads = np.bincount(np.minimum(counts, 4), weights=counts, minlength=5)
    return bar_chart(
        title=f"{len(counts):,} blocks with {counts.sum():,} heads",
        labels=["0", "1", "2", "3", "4 or more"],
        series={
            "blocks": [float(100 * each / blocks.sum()) for each in blocks],
            "heads": [float(100 * each / heads.sum()) for each in heads],
        },
        xlabel="heads in a block",
        ylabel="share, %",
        log=True,
    )


def main() -> None:
    """Write all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="starter")
    options = parser.parse_args()
    scene, dense = street(), crowd()
    PICTURES.mkdir(exist_ok=True)
    Image.fromarray(scene.image).save(HERE / "street.jpg", quality=80)
    Image.fromarray(blocks_picture(dense)).save(PICTURES / "blocks.jpg", quality=85)
    write_bytes(PICTURES / "bins.png", bins_picture(dense))
    seen = cc.load(options.checkpoint).count(HERE / "street.jpg")
    seen.heatmap().save(PICTURES / "heatmap.jpg", quality=80)
    print(f"{len(scene.points)} heads, counted {seen.total:.1f}")


if __name__ == "__main__":
    main()
