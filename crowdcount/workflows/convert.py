"""Write images and points of a data set in the formats of annotation tools."""

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float64

from crowdcount.core.limits import MAX_PIXELS
from crowdcount.core.progress import Track, untracked
from crowdcount.core.settings import check_choice
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import MANIFEST
from crowdcount.data.sources.convert import annotated_heads
from crowdcount.data.sources.find import find_sets
from crowdcount.data.sources.images import read_content
from crowdcount.data.sources.point_tables import CSV_HEADER
from crowdcount.errors import BadInputError, UsageError
from crowdcount.files import atomic_folder, refuse_existing
from crowdcount.workflows.scan import refuse_suspicious, scan

LABEL = "head"
"""Name of the class of all points."""


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """An image and its heads, in the frame in which tools show it: upright."""

    split: str
    file: str
    """Path below the folder of the split, with ``/``."""

    width: int
    height: int
    heads: Float64[np.ndarray, "heads 2"]
    """Head centres ``(x, y)`` in pixels."""

    content: bytes = field(default=b"", repr=False)
    """The image file; it is not kept while annotations are written."""

    @property
    def points(self) -> list[tuple[float, float]]:
        """The heads as numbers of Python, whose text gives back the very same numbers."""
        return [(float(x), float(y)) for x, y in self.heads]


def convert(
    data: Path,
    *,
    to: str,
    output: Path,
    dataset: str | Path | None = None,
    skip_unpaired: bool = False,
    force: bool = False,
    max_pixels: int = MAX_PIXELS,
    track: Track = untracked,
) -> int:
    """Write images and annotated points of a data set into a folder for an annotation tool.

    Each split becomes a folder with its images and annotations. Images of a prepared set have
    their prepared size, those of a source their own.

    Args:
        data: A prepared data set, or a folder that ``preprocess`` recognises.
        to: Format of the annotations, a name in ``WRITERS``.
        output: Folder to write.
        dataset: Name or file of the recipe, if the layout does not identify it.
        skip_unpaired: Leaves images without annotation out.
        force: Replaces an existing folder.
        max_pixels: Larger originals are refused by their header.
        track: Shows progress.

    Returns:
        The number of heads written.

    Raises:
        ConfigError: If the format is unknown.
        UsageError: If the output exists, or it and ``data`` lie in each other, or ``data`` holds
            several sets.
        InputMissingError: If no data set is recognised or an image has no annotation.
        BadInputError: If a file is damaged, or its name cannot stand in the format.
    """
    check_choice("--to", to, WRITERS)
    here, there = data.resolve(), output.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise UsageError(
            f"{output}: lies in {data}, or holds it", next_step="name a folder outside of the data"
        )
    refuse_existing(output, force=force)
    if (data / MANIFEST).exists():
        images = _prepared_images(PreparedDataset.open(data), track)
    else:
        images = _source_images(
            data, dataset=dataset, skip_unpaired=skip_unpaired, max_pixels=max_pixels, track=track
        )
    splits: dict[str, list[AnnotatedImage]] = {}
    with atomic_folder(output) as folder:
        for image in images:
            _refuse_name(image)
            path = folder / image.split / image.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.content)
            kept = AnnotatedImage(**{**vars(image), "content": b""})
            splits.setdefault(image.split, []).append(kept)
        for split, members in splits.items():
            for name, text in WRITERS[to](members).items():
                path = folder / split / name
                if path.exists():
                    raise BadInputError(
                        f"{split}/{name}: is the annotation of several images, or an image",
                        next_step="rename one, or convert to another format",
                    )
                path.write_text(text, encoding="utf-8", newline="")
    return sum(len(image.heads) for members in splits.values() for image in members)


def _prepared_images(data: PreparedDataset, track: Track) -> Iterator[AnnotatedImage]:
    for record in track(data.manifest.images, label="converting"):
        yield AnnotatedImage(
            split=record.split,
            file=record.file,
            width=record.width,
            height=record.height,
            heads=data.points(record),
            content=read_content(data.image_path(record), what="image"),
        )


def _source_images(
    folder: Path,
    *,
    dataset: str | Path | None,
    skip_unpaired: bool,
    max_pixels: int,
    track: Track,
) -> Iterator[AnnotatedImage]:
    first, *others = find_sets(folder, dataset=dataset)
    if others:
        names = ", ".join(each.root.name for each in (first, *others))
        raise UsageError(f"{folder}: holds several data sets: {names}", next_step="name one folder")
    scanned = scan(first, skip_unpaired=skip_unpaired)
    refuse_suspicious(scanned)
    points = scanned.source.recipe.points
    for image in track(scanned.images, label="converting"):
        content = read_content(image.path, what="image")
        annotated = annotated_heads(image, content, points=points, max_pixels=max_pixels)
        yield AnnotatedImage(
            split=image.split,
            file=image.file,
            width=annotated.width,
            height=annotated.height,
            heads=annotated.upright(points),
            content=content,
        )


def _refuse_name(image: AnnotatedImage) -> None:
    """Refuse names that XML, or text in UTF-8, cannot hold: control characters and other bytes."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in image.file):
        raise BadInputError(
            f"{image.split}/{image.file!a}: a name with control characters, or not in UTF-8",
            next_step="rename the image",
        )


def csv_files(images: Sequence[AnnotatedImage]) -> dict[str, str]:
    """Write the table ``image,x,y`` that ``preprocess`` reads."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(CSV_HEADER)
    for image in images:
        rows.writerows((image.file, x, y) for x, y in image.points)
        if not image.points:
            rows.writerow((image.file, "", ""))
    return {"points.csv": text.getvalue()}


def coco_files(images: Sequence[AnnotatedImage]) -> dict[str, str]:
    """Write keypoints as in COCO's person_keypoints, one visible keypoint an annotation.

    Format: https://cocodataset.org/#format-data
    """
    heads = [(number, head) for number, image in enumerate(images, 1) for head in image.points]
    content = {
        "images": [
            {"id": number, "file_name": image.file, "width": image.width, "height": image.height}
            for number, image in enumerate(images, 1)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image_id,
                "category_id": 1,
                "keypoints": [x, y, 2],
                "num_keypoints": 1,
                "bbox": [x, y, 0, 0],
                "area": 0,
                "iscrowd": 0,
            }
            for number, (image_id, (x, y)) in enumerate(heads, 1)
        ],
        "categories": [
            {
                "id": 1,
                "name": LABEL,
                "supercategory": "person",
                "keypoints": [LABEL],
                "skeleton": [],
            }
        ],
    }
    return {"annotations.json": _json(content)}


def labelme_files(images: Sequence[AnnotatedImage]) -> dict[str, str]:
    """Write a file of points beside each image, which LabelMe opens with it.

    Raises:
        BadInputError: If two images differ in their extension alone, and would share a file.
    """
    files: dict[str, str] = {}
    for image in images:
        path = PurePosixPath(image.file)
        name = str(path.with_suffix(".json"))
        if name in files:
            raise BadInputError(
                f"{image.split}/{name}: LabelMe has one file for images that differ in their "
                f"extension alone, such as {image.file}",
                next_step="rename one, or convert to another format",
            )
        shapes: list[dict[str, Any]] = [
            {
                "label": LABEL,
                "points": [head],
                "group_id": None,
                "description": "",
                "shape_type": "point",
                "flags": {},
            }
            for head in image.points
        ]
        files[name] = _json(
            {
                "version": "5.0.1",
                "flags": {},
                "shapes": shapes,
                "imagePath": path.name,
                "imageData": None,
                "imageHeight": image.height,
                "imageWidth": image.width,
            }
        )
    return files


def labelstudio_files(images: Sequence[AnnotatedImage]) -> dict[str, str]:
    """Write tasks for Label Studio, with images served from its local files storage.

    Positions are percentages of the image. Format: https://labelstud.io/tags/keypointlabels
    """
    tasks = []
    for image in images:
        common = {
            "type": "keypointlabels",
            "from_name": LABEL,
            "to_name": "image",
            "original_width": image.width,
            "original_height": image.height,
            "image_rotation": 0,
        }
        result = [
            common
            | {
                "id": f"{LABEL}{number}",
                "value": {
                    "x": 100 * x / image.width,
                    "y": 100 * y / image.height,
                    "width": 0.5,
                    "keypointlabels": [LABEL],
                },
            }
            for number, (x, y) in enumerate(image.points, 1)
        ]
        path = quote(f"{image.split}/{image.file}")
        tasks.append(
            {
                "data": {"image": f"/data/local-files/?d={path}"},
                "annotations": [{"result": result}],
            }
        )
    return {"tasks.json": _json(tasks)}


def cvat_files(images: Sequence[AnnotatedImage]) -> dict[str, str]:
    """Write CVAT for images 1.1, a shape for each head so that each can be removed.

    Format: "XML annotation format" in the documentation of CVAT.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    label = ElementTree.SubElement(ElementTree.SubElement(task, "labels"), "label")
    ElementTree.SubElement(label, "name").text = LABEL
    ElementTree.SubElement(label, "type").text = "points"
    for number, image in enumerate(images):
        size = {"width": str(image.width), "height": str(image.height)}
        element = ElementTree.SubElement(
            root, "image", {"id": str(number), "name": image.file, **size}
        )
        for x, y in image.points:
            ElementTree.SubElement(
                element,
                "points",
                {
                    "label": LABEL,
                    "source": "manual",
                    "occluded": "0",
                    "points": f"{x},{y}",
                    "z_order": "0",
                },
            )
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return {"annotations.xml": f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'}


WRITERS: dict[str, Callable[[Sequence[AnnotatedImage]], dict[str, str]]] = {
    "coco": coco_files,
    "labelme": labelme_files,
    "labelstudio": labelstudio_files,
    "cvat": cvat_files,
    "csv": csv_files,
}
"""Formats: functions that give the annotation files of a split, texts by path below its folder."""


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
