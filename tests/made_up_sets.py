"""Small made-up instances of the public data sets, each laid out as its archive is."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

SIZE = (64, 48)

Points = np.ndarray


def write_image(path: Path, *, seed: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size).save(path)


def made_up_points(heads: int, *, seed: int) -> Points:
    """Points to two decimals, so that text files hold them exactly."""
    points = np.random.default_rng(seed).uniform((0, 0), SIZE, (heads, 2))
    return np.floor(points * 100) / 100


def write_mat(path: Path, points: Points, *, key: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {key: points})


def write_shanghaitech(root: Path, heads: dict[str, list[int]]) -> None:
    for split, counts in heads.items():
        folder = root / f"{split}_data"
        for k, count in enumerate(counts, start=1):
            write_image(folder / "images" / f"IMG_{k}.jpg", seed=k)
            cell = np.empty((1, 1), dtype=object)
            cell[0, 0] = {"location": made_up_points(count, seed=k), "number": count}
            path = folder / "ground-truth" / f"GT_IMG_{k}.mat"
            path.parent.mkdir(parents=True, exist_ok=True)
            scipy.io.savemat(path, {"image_info": cell})


def write_qnrf(root: Path, heads: dict[str, list[int]]) -> None:
    for split, counts in heads.items():
        for k, count in enumerate(counts, start=1):
            stem = root / split.capitalize() / f"img_{k:04}"
            write_image(stem.with_suffix(".jpg"), seed=k)
            points = made_up_points(count, seed=k)
            write_mat(stem.with_name(f"{stem.name}_ann.mat"), points, key="annPoints")


def write_nwpu(root: Path, heads: dict[str, list[int]], *, truth: str = "mats") -> None:
    """Ids run on through the splits; every third begins another part. Test has no annotation."""
    image_id = 0
    for split, counts in heads.items():
        lines = []
        for count in counts:
            image_id += 1
            lines.append(f"{image_id:04} 1 {image_id % 3}")
            part = min(5, (image_id - 1) // 3 + 1)
            write_image(root / f"images_part{part}" / f"{image_id:04}.jpg", seed=image_id)
            if split != "test":
                points = made_up_points(count, seed=image_id)
                if truth == "mats":
                    write_mat(root / "mats" / f"{image_id:04}.mat", points, key="annPoints")
                else:
                    annotation = {"img_id": f"{image_id:04}.jpg", "points": points.tolist()}
                    path = root / "jsons" / f"{image_id:04}.json"
                    path.parent.mkdir(exist_ok=True)
                    path.write_text(json.dumps(annotation))
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")


def write_jhu(root: Path, heads: dict[str, list[int]]) -> None:
    for split, counts in heads.items():
        lines = []
        for k, count in enumerate(counts, start=1):
            lines.append(f"{k:04},{count},street,0,0")
            write_image(root / split / "images" / f"{k:04}.jpg", seed=k)
            rows = [f"{x:.2f} {y:.2f} 5 6 1 0" for x, y in made_up_points(count, seed=k)]
            path = root / split / "gt" / f"{k:04}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(f"{row}\n" for row in rows))
        (root / split / "image_labels.txt").write_text("\n".join(lines) + "\n")


def write_ucf50(root: Path, heads: dict[str, list[int]]) -> None:
    for k, count in enumerate(heads["train"], start=1):
        write_image(root / f"{k}.jpg", seed=k)
        write_mat(root / f"{k}_ann.mat", made_up_points(count, seed=k), key="annPoints")


def write_mall(root: Path, heads: dict[str, list[int]], *, first_test: int = 801) -> None:
    """Frames 1, 2, ... to train on and 801, ... to test on; the table knows all between, too."""
    numbered = dict(enumerate(heads["train"], start=1))
    numbered |= dict(enumerate(heads.get("test", ()), start=first_test))
    frames = np.empty((1, max(numbered)), dtype=object)
    for k in range(1, max(numbered) + 1):
        frame = np.empty((1, 1), dtype=[("loc", object)])
        frame["loc"][0, 0] = made_up_points(numbered.get(k, 0), seed=k)
        frames[0, k - 1] = frame
    for k in numbered:
        write_image(root / "frames" / f"seq_{k:06}.jpg", seed=k)
    scipy.io.savemat(root / "mall_gt.mat", {"frame": frames})


def write_brt(root: Path, heads: dict[str, list[int]]) -> None:
    for split, counts in heads.items():
        for k, count in enumerate(counts, start=1):
            name = f"{k}-20170325134657"
            write_image(root / split / "frame" / f"{name}.jpg", seed=k)
            points = made_up_points(count, seed=k)
            write_mat(root / split / "ground_truth" / f"{name}.mat", points, key="loc")


WRITERS: dict[str, Callable[[Path, dict[str, list[int]]], None]] = {
    "sha": write_shanghaitech,
    "shb": write_shanghaitech,
    "qnrf": write_qnrf,
    "nwpu": write_nwpu,
    "nwpu-json": partial(write_nwpu, truth="jsons"),
    "jhu": write_jhu,
    "ucf50": write_ucf50,
    "mall": write_mall,
    "brt": write_brt,
}

FOLDERS = {
    "sha": "part_A_final",
    "shb": "part_B_final",
    "qnrf": "UCF-QNRF_ECCV18",
    "nwpu": "NWPU-Crowd",
    "nwpu-json": "NWPU-Crowd-JSON",
    "jhu": "jhu_crowd_v2.0",
    "ucf50": "UCF_CC_50",
    "mall": "mall_dataset",
    "brt": "Beijing-BRT-dataset-master",
}
"""What the folder of each archive is called."""

HEADS = {
    "sha": {"train": [3, 0, 7], "test": [2, 4]},
    "shb": {"train": [1, 5, 2], "test": [6]},
    "qnrf": {"train": [9, 4, 12], "test": [5, 8]},
    "nwpu": {"train": [3, 0, 8, 2], "val": [5, 1], "test": [0, 0, 0]},
    "nwpu-json": {"train": [3, 0, 8, 2], "val": [5, 1], "test": [0, 0, 0]},
    "jhu": {"train": [2, 0, 6], "val": [4], "test": [3, 3]},
    "ucf50": {"train": [k % 7 for k in range(1, 51)]},
    "mall": {"train": [4, 2, 5, 1], "test": [3, 6]},
    "brt": {"train": [1, 3, 2], "test": [5]},
}
"""Heads of each image of the made-up instances; those of NWPU's test split nobody knows."""


def write_set(name: str, parent: Path, *, folder: str | None = None) -> Path:
    """A made-up instance of a data set, in a folder called as that of its archive."""
    root = parent / (folder or FOLDERS[name])
    root.mkdir(parents=True)
    WRITERS[name](root, HEADS[name])
    return root


def blank_image(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def empty_file(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def shanghaitech_like(root, *, train=2, test=1, truth="ground-truth", size=(40, 30)):
    """A folder in the layout of ShanghaiTech. Annotations are found here, not read."""
    for split, count in (("train", train), ("test", test)):
        for k in range(1, count + 1):
            blank_image(root / f"{split}_data" / "images" / f"IMG_{k}.jpg", size)
            empty_file(root / f"{split}_data" / truth / f"GT_IMG_{k}.mat")
    return root


def points_table(folder, rows, name="heads.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("image,x,y\n" + "".join(f"{row}\n" for row in rows))
