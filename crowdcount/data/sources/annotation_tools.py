"""What annotation tools write: a function for each of their formats reads the heads of images."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from crowdcount.core.settings import parse
from crowdcount.wording import counted, shorten

log = logging.getLogger("crowdcount")

PEOPLE = ("head", "heads", "person", "people", "pedestrian", "human", "face")
"""Labels that mean a head, in small letters."""

Shape = tuple[str, str, float, float]
"""Image, label, and the place ``(x, y)`` of a head in pixels."""

_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""Label Studio begins the names of uploaded files with eight digits of its own."""


@dataclass(frozen=True)
class _CocoImage:
    id: int | str
    file_name: str


@dataclass(frozen=True)
class _CocoAnnotation:
    image_id: int | str
    category_id: int = 0
    keypoints: tuple[float, ...] = ()
    bbox: tuple[float, float, float, float] | None = None
    iscrowd: int = 0


@dataclass(frozen=True)
class _CocoCategory:
    id: int
    name: str = ""
    keypoints: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Coco:
    images: list[_CocoImage]
    annotations: list[_CocoAnnotation]
    categories: list[_CocoCategory] = field(default_factory=list)


def _coco(value: Any) -> tuple[list[str], Iterator[Shape]]:
    """COCO: the keypoint called head, or the only one, or the centre of the box.

    Format: https://cocodataset.org/#format-data
    """
    content = parse(_Coco, value)
    names = {image.id: image.file_name for image in content.images}
    categories = {category.id: category for category in content.categories}

    def shapes() -> Iterator[Shape]:
        boxes = crowds = 0
        for number, each in enumerate(content.annotations):
            if each.image_id not in names:
                raise ValueError(f"annotations.{number}: no image has the id {each.image_id!r}")
            if each.iscrowd:
                crowds += 1
                continue
            category = categories.get(each.category_id, _CocoCategory(id=each.category_id))
            points = [each.keypoints[k : k + 3] for k in range(0, len(each.keypoints), 3)]
            place = category.keypoints.index("head") if "head" in category.keypoints else 0
            is_head = "head" in category.keypoints or len(points) == 1
            if is_head and place < len(points) and len(points[place]) == 3 and points[place][2]:
                x, y, _ = points[place]
            elif each.bbox is not None:
                boxes += 1
                x, y = each.bbox[0] + each.bbox[2] / 2, each.bbox[1] + each.bbox[3] / 2
            else:
                raise ValueError(f"annotations.{number}: neither a keypoint of a head nor a box")
            yield names[each.image_id], category.name, x, y
        _say_boxes(boxes)
        if crowds:
            log.warning("%s of crowds have no heads, and are left out", counted(crowds, "region"))

    return [image.file_name for image in content.images], shapes()


@dataclass(frozen=True)
class _LabelMeShape:
    label: str
    points: list[tuple[float, float]]
    shape_type: str = "point"


@dataclass(frozen=True)
class _LabelMe:
    imagePath: str  # noqa: N815 - LabelMe's name
    shapes: list[_LabelMeShape]


def _labelme(value: Any) -> tuple[list[str], Iterator[Shape]]:
    """LabelMe, a file for each image: points, centres of circles and of rectangles."""
    content = parse(_LabelMe, value)

    def shapes() -> Iterator[Shape]:
        boxes = 0
        for number, shape in enumerate(content.shapes):
            needed = {"point": 1, "circle": 2, "rectangle": 2}.get(shape.shape_type)
            if needed is None or len(shape.points) != needed:
                raise ValueError(
                    f"shapes.{number}: expected a point, circle or rectangle, found "
                    f"{shape.shape_type!r} of {counted(len(shape.points), 'point')}"
                )
            (x, y), *rest = shape.points
            if shape.shape_type == "rectangle":
                boxes += 1
                x, y = (x + rest[0][0]) / 2, (y + rest[0][1]) / 2
            yield content.imagePath, shape.label, x, y
        _say_boxes(boxes)

    return [content.imagePath], shapes()


@dataclass(frozen=True)
class _Place:
    x: float
    y: float


@dataclass(frozen=True)
class _CcLabeler:
    img_id: str
    points: list[_Place | tuple[float, float]]
    human_num: int | None = None


def _cclabeler(value: Any) -> tuple[list[str], Iterator[Shape]]:
    """Cclabeler and the JSON of NWPU-Crowd, a file for each image."""
    content = parse(_CcLabeler, value)
    if content.human_num not in (None, len(content.points)):
        log.warning(
            "%s: says %d heads and holds %d points, which count",
            *(content.img_id, content.human_num, len(content.points)),
        )
    places = (each if isinstance(each, tuple) else (each.x, each.y) for each in content.points)
    return [content.img_id], ((content.img_id, "head", x, y) for x, y in places)


@dataclass(frozen=True)
class _StudioValue:
    x: float | None = None
    y: float | None = None
    width: float = 0.0
    height: float = 0.0
    keypointlabels: tuple[str, ...] = ()
    rectanglelabels: tuple[str, ...] = ()


@dataclass(frozen=True)
class _StudioResult:
    type: str
    value: _StudioValue = field(default_factory=_StudioValue)
    original_width: float | None = None
    original_height: float | None = None


@dataclass(frozen=True)
class _StudioAnnotation:
    result: list[_StudioResult]
    was_cancelled: bool = False


@dataclass(frozen=True)
class _StudioTask:
    data: dict[str, Any]
    annotations: list[_StudioAnnotation]


@dataclass(frozen=True)
class _Studio:
    tasks: list[_StudioTask]


def _label_studio(value: Any) -> tuple[list[str], Iterator[Shape]]:
    """Label Studio's JSON: keypoints and centres of rectangles, in percent of the image.

    Format: https://labelstud.io/tags/keypointlabels
    """
    tasks = []
    for number, task in enumerate(parse(_Studio, {"tasks": value}).tasks):
        done = [each for each in task.annotations if not each.was_cancelled]
        if len(done) > 1:
            raise ValueError(f"task {number + 1} has {len(done)} annotations, expected one")
        image = next((each for each in task.data.values() if isinstance(each, str)), None)
        if image is None:
            raise ValueError(f"task {number + 1} names no image in its data")
        tasks += [(_studio_path(image), each) for each in done]

    def shapes() -> Iterator[Shape]:
        boxes = 0
        for image, annotation in tasks:
            for each in annotation.result:
                if each.type not in ("keypointlabels", "keypoint", "rectanglelabels", "rectangle"):
                    raise ValueError(f"{image}: expected key points, found {each.type!r}")
                place, size = each.value, (each.original_width, each.original_height)
                if place.x is None or place.y is None or size[0] is None or size[1] is None:
                    raise ValueError(f"{image}: a {each.type} without its place or image size")
                is_box = each.type.startswith("rectangle")
                boxes += is_box
                x = place.x + (place.width / 2 if is_box else 0)
                y = place.y + (place.height / 2 if is_box else 0)
                labels = (*place.keypointlabels, *place.rectanglelabels, "")
                yield image, labels[0], x * size[0] / 100, y * size[1] / 100
        _say_boxes(boxes)

    return [image for image, _ in tasks], shapes()


def _studio_path(url: str) -> str:
    """Return the path of a local file in an address of Label Studio, or the name of an upload."""
    parts = urlsplit(url)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else _UPLOADED.sub("", unquote(parts.path).rpartition("/")[2])


@dataclass(frozen=True)
class _ViaShape:
    name: str
    cx: float | None = None
    cy: float | None = None
    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None


@dataclass(frozen=True)
class _ViaRegion:
    shape_attributes: _ViaShape


@dataclass(frozen=True)
class _ViaFile:
    filename: str
    regions: list[_ViaRegion] | dict[str, _ViaRegion]


@dataclass(frozen=True)
class _Via:
    files: dict[str, _ViaFile]


def _via(value: Any) -> tuple[list[str], Iterator[Shape]]:
    """VGG Image Annotator, project or exported JSON: points, circles, centres of rectangles."""
    files = parse(_Via, {"files": value.get("_via_img_metadata", value)}).files
    regions = [
        (each.filename, region.shape_attributes)
        for each in files.values()
        for region in (each.regions.values() if isinstance(each.regions, dict) else each.regions)
    ]
    return [each.filename for each in files.values()], _via_shapes(regions)


def _via_shapes(regions: Sequence[tuple[str, _ViaShape]]) -> Iterator[Shape]:
    boxes = 0
    for image, shape in regions:
        if shape.cx is not None and shape.cy is not None:
            yield image, "head", shape.cx, shape.cy
        elif None not in (corners := (shape.x, shape.y, shape.width, shape.height)):
            boxes += 1
            x, y, width, height = (float(each or 0) for each in corners)
            yield image, "head", x + width / 2, y + height / 2
        else:
            raise ValueError(f"{image}: expected a point or rectangle, found {shape.name!r}")
    _say_boxes(boxes)


VIA_COLUMNS = ("filename", "region_count", "region_shape_attributes")
"""Columns of VIA's table that are read."""


def via_rows(rows: Sequence[Mapping[str, str]], load: Callable[[str], Any]) -> dict[str, Any]:
    """Return the JSON form of VIA's table, from its rows by column."""
    files: dict[str, Any] = {}
    for number, row in enumerate(rows, start=2):
        name = row["filename"]
        regions = files.setdefault(name, {"filename": name, "regions": []})["regions"]
        shape = load(row["region_shape_attributes"] or "{}")
        if shape:
            regions.append({"shape_attributes": shape})
        elif row["region_count"] not in ("0", ""):
            raise ValueError(f"line {number}: a region without its shape")
    return files


def _is_object(*keys: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(key in value for key in keys)


def _is_via(value: Any) -> bool:
    files = value.get("_via_img_metadata", value) if isinstance(value, dict) else None
    return (
        isinstance(files, dict)
        and bool(files)
        and all(_is_object("filename", "regions")(each) for each in files.values())
    )


def _is_studio(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(map(_is_object("data", "annotations"), value))
    )


@dataclass(frozen=True, kw_only=True)
class ToolFormat:
    """A JSON format of an annotation tool."""

    recognises: Callable[[Any], bool]
    """Returns whether a JSON value has this format."""

    read: Callable[[Any], tuple[list[str], Iterator[Shape]]]
    """Returns the images that a file names, and the shapes on them."""


JSON_TOOLS: Mapping[str, ToolFormat] = MappingProxyType(
    {
        "coco": ToolFormat(recognises=_is_object("images", "annotations"), read=_coco),
        "labelme": ToolFormat(recognises=_is_object("shapes", "imagePath"), read=_labelme),
        "cclabeler": ToolFormat(recognises=_is_object("img_id", "points"), read=_cclabeler),
        "labelstudio": ToolFormat(recognises=_is_studio, read=_label_studio),
        "via": ToolFormat(recognises=_is_via, read=_via),
    }
)
"""Tools by the name of their format; the first that recognises a file reads it."""


def read_cvat(content: bytes) -> tuple[list[str], Iterator[Shape]]:
    """CVAT for images 1.1: points, and centres of boxes.

    Format: "XML annotation format" in the documentation of CVAT.

    Raises:
        ValueError: If the content does not follow the format.
    """
    if b"<!" in re.sub(rb"<!--.*?-->", b"", content, flags=re.DOTALL):
        raise ValueError("an XML file with a document type, which CVAT does not write")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"not XML: {error}") from error
    images = root.findall("image")
    names = [image.get("name") for image in images]
    if root.tag != "annotations" or not all(names):
        raise ValueError("not CVAT's annotations of images")

    def shapes() -> Iterator[Shape]:
        boxes = 0
        for image in images:
            name = image.get("name", "")
            for shape in image:
                label = shape.get("label", "")
                if shape.tag == "points":
                    pairs = shape.get("points", "").split(";")
                    yield from ((name, label, *_numbers(pair, 2, where=name)) for pair in pairs)
                elif shape.tag == "box":
                    boxes += 1
                    corners = ",".join(shape.get(key, "") for key in ("xtl", "ytl", "xbr", "ybr"))
                    left, top, right, bottom = _numbers(corners, 4, where=name)
                    yield name, label, (left + right) / 2, (top + bottom) / 2
                elif shape.tag != "tag":
                    raise ValueError(f"{name}: expected points or boxes, found {shape.tag!r}")
        _say_boxes(boxes)

    return [str(name) for name in names], shapes()


def _numbers(text: str, number: int, *, where: str) -> Any:
    try:
        values = [float(each) for each in text.split(",")]
    except ValueError:
        values = []
    if len(values) != number:
        raise ValueError(f"{where}: expected {number} numbers, found {text[:40]!r}")
    return values


def heads_by_image(
    images: Sequence[str], shapes: Iterator[Shape], *, label: str
) -> dict[str, list[tuple[float, float]]]:
    """Sort the heads of a file by image.

    Args:
        images: The images that the file names; one without a head is an empty scene.
        shapes: The shapes on them.
        label: The label that means a head; empty: one of ``PEOPLE``, or the only one there is in a
            file of several images.

    Raises:
        ValueError: If an image occurs twice, or it is uncertain which label means a head.
    """
    repeated = [name for name, number in Counter(images).items() if number > 1]
    if repeated:
        raise ValueError(f"{shorten(repeated)} occurs twice")
    found = list(shapes)
    labels = sorted({name for _, name, _, _ in found})
    people = {name for name in labels if name.strip().lower() in PEOPLE}
    only = set(labels) if len(labels) == 1 and (len(images) > 1 or labels == [""]) else set()
    meant = {label} if label else people or only
    if found and not meant:
        raise ValueError(
            f"which label is a head? Found {shorten(labels)}: pass one with --label, or call it "
            "head or person"
        )
    heads: dict[str, list[tuple[float, float]]] = {image: [] for image in images}
    for image, name, x, y in found:
        if name in meant:
            heads[image].append((x, y))
    return heads


def _say_boxes(number: int) -> None:
    if number:
        log.info("boxes count by their centres: %s", f"{number:,}")
