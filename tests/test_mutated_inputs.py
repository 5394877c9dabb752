"""Thousands of damaged files: each is one error for people, or a result. Never anything else.

The damage is drawn from a fixed seed. Image formats, readers of points and readers of tables are
iterated, so that a new one is damaged on the day it is added. ``CROWDCOUNT_TEST_MUTATIONS=3000``
draws that many of each kind.
"""

import dataclasses
import io
import json
import os
import pickle
import random
import re
import shutil
import signal
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from safetensors.torch import save as to_safetensors

from crowdcount.cli import main
from crowdcount.config import load_run_config
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.journal import journal_line
from crowdcount.data.prepared.manifest import JOURNAL, MANIFEST
from crowdcount.data.prepared.verify import record_problems
from crowdcount.data.sources.annotations import READERS, TABLES, PointsFormat
from crowdcount.data.sources.images import IMAGE_SUFFIXES, check_pixels, image_header, load_image
from crowdcount.errors import CrowdCountError
from crowdcount.files import sha256_file
from crowdcount.models.checkpoints.format import describe, load_checkpoint
from crowdcount.models.checkpoints.tensor_files import read_tensors
from crowdcount.runs.folder import LOG, RECORD, SETTINGS, STATE, RunFolder, find_run
from crowdcount.runs.resume import data_of_run
from crowdcount.workflows.bins import BinsTable, make_bins, write_bins
from crowdcount.workflows.bins_tables import read_table
from crowdcount.workflows.card import card_lines, read_card
from crowdcount.workflows.counter import load
from crowdcount.workflows.models import list_checkpoints
from crowdcount.workflows.preprocess import preprocess
from crowdcount.workflows.runs import compare, list_runs, summary
from crowdcount.workflows.show import summaries
from crowdcount.workflows.train import train
from crowdcount.workflows.verify import verify
from tests.tiny_run import tiny_config

T = TypeVar("T")

MUTATIONS = int(os.environ.get("CROWDCOUNT_TEST_MUTATIONS", "0"))
"""How many damaged files of each kind to draw, if more than the suite does."""

SECONDS = 10
"""No file of a few kilobytes may keep us longer."""


class TookTooLongError(BaseException):
    """Not an Exception, so that no handler for damaged files swallows it."""


@contextmanager
def in_time(what: str) -> Iterator[None]:
    """Fail what does not end, and what ends late because C code could not be interrupted."""

    def stop(*_: object) -> None:
        raise TookTooLongError(what)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    started = time.perf_counter()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.perf_counter() - started < SECONDS, what


def refused_or(
    use: Callable[[], T], *, what: str, refusal: type[Exception] = CrowdCountError
) -> T | Exception:
    """What a use of a damaged file gives: the error for people, or the result."""
    with in_time(what):
        try:
            return use()
        except refusal as error:
            return error


# ---- damage


def flipped(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    # Half of the time near the beginning, where the header is.
    reach = len(damaged) if rng.random() < 0.5 else min(len(damaged), 64)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def zeroed(content: bytes, rng: random.Random) -> bytes:
    start, length = _piece(content, rng)
    return content[:start] + bytes(length) + content[start + length :]


def inserted(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + rng.randbytes(rng.randint(1, 24)) + content[at:]


def swapped(content: bytes, rng: random.Random) -> bytes:
    first, second, third = sorted(rng.randrange(len(content)) for _ in range(3))
    return content[:first] + content[second:third] + content[first:second] + content[third:]


def repeated(content: bytes, rng: random.Random) -> bytes:
    start, length = _piece(content, rng)
    return content[: start + length] + content[start:]


def huge(content: bytes, rng: random.Random) -> bytes:
    """The largest integers, of two to eight bytes, where some field may be."""
    at = rng.randrange(min(len(content), 400))
    value = rng.choice([b"\xff\xff", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
    value = rng.choice([value, value * 2])
    return content[:at] + value + content[at + len(value) :]


def retyped(content: bytes, rng: random.Random) -> bytes:
    """In text, a number, word or bracket replaced by something else; else a random piece."""
    words = list(re.finditer(rb"-?\d[\d.eE+-]*|[A-Za-z_]+|[\[\]{},:]", content))
    word = rng.choice(words) if words else re.compile(rb".", re.DOTALL).match(content)
    assert word is not None
    return content[: word.start()] + rng.choice(ODDITIES) + content[word.end() :]


ODDITIES = [
    *(b"", b"-1", b"0", b"1e999", b"-1e308", b"NaN", b"Infinity", b"0.5", b"1" + b"0" * 400),
    *(b"9" * 5000, b"null", b"true", b'"x"', b"[]", b"{}", b"[[1,2],[3]]", b"\xff\xfe", b"\0"),
    *(b"[" * 100_000, b'{"a":' * 100_000, b'"\\ud800"', b"\r", b'"', b"../../x", b"99999999999"),
]

DAMAGES = (flipped, truncated, zeroed, inserted, swapped, repeated, huge, retyped)


def _piece(content: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(content))
    return start, rng.randint(1, max(1, min(len(content) - start, len(content) // 4)))


def rewritten(content: bytes, rng: random.Random) -> bytes:
    """JSON that is still JSON, with one value somewhere in it replaced, left out or made deep."""
    value = json.loads(content)
    holder, key = rng.choice(list(_places(value)))
    odd = rng.choice(ODD_VALUES)
    if isinstance(holder, dict) and rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = odd
    return json.dumps(value).encode()


ODD_VALUES = [
    *(None, True, -1, 0, 0.5, 1e308, 10**9, 2**31 - 1, 2**31, 10**30, 10**400, float("nan")),
    *("", "x", "\0", "../../x", "9" * 5000, "a" * 300, "\ud800", [], {}, [[]], {"x": {}}),
]


def _places(value: object) -> Iterator[tuple[dict | list, object]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def damaged(
    seeds: dict[str, bytes], *, count: int, ways: tuple[Callable[..., bytes], ...] = DAMAGES
) -> Iterator[tuple[str, bytes]]:
    """Damaged copies of each seed in turn, by each way in turn, with what was done to them."""
    names = sorted(seeds)
    for number in range(max(count, MUTATIONS)):
        name, way = names[number % len(names)], ways[number // len(names) % len(ways)]
        rng = random.Random(crc32(f"{name} {way.__name__} {number}".encode()))
        yield f"{name}, {way.__name__}, number {number}", way(seeds[name], rng)


# ---- what is damaged


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def colours(size: tuple[int, int] = (20, 14), seed: int = 1) -> Image.Image:
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def formats() -> set[str]:
    """Pillow's names of the formats whose endings we know; HEIF is an extra."""
    registered = Image.registered_extensions()
    return {registered.get(ending, "HEIF") for ending in IMAGE_SUFFIXES}


def image_seeds(format: str) -> dict[str, bytes]:
    """Tiny images of a format: of colours, turned, animated, transparent, grey, of 16 bits."""
    if format == "HEIF":
        pillow_heif = pytest.importorskip("pillow_heif")
        content = io.BytesIO()
        pillow_heif.from_pillow(colours()).save(content)
        return {"HEIF": content.getvalue()}
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = np.asarray(colours().convert("L")).astype(np.uint16) * 257
    variants: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "colours": (colours(), {}),
        "turned": (colours(), {"exif": exif}),
        "grey": (colours().convert("L"), {}),
        "palette": (colours().convert("P"), {}),
        "transparent": (colours().convert("RGBA"), {}),
        "16 bits": (Image.fromarray(wide), {}),
        "inks": (colours().convert("CMYK"), {}),
        "frames": (colours(), {"save_all": True, "append_images": [colours(seed=2)]}),
    }
    seeds = {}
    for name, (image, options) in variants.items():
        try:
            seeds[f"{format} of {name}"] = encoded(image, format, **options)
        except (KeyError, OSError, ValueError):
            continue  # the format has no such images
    assert seeds, format
    return seeds


HEADS = np.array([[1.5, 2.0], [12.25, 4.0], [3.0, 3.0]])


def mat(*, compress: bool = False) -> bytes:
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = {"location": HEADS, "number": 3}
    content = io.BytesIO()
    variables = {"annPoints": HEADS, "points": HEADS.astype(np.uint8), "image_info": cell}
    scipy.io.savemat(content, variables, do_compression=compress)
    return content.getvalue()


def npy(points: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, points)
    return content.getvalue()


# Every reader gets every seed: what is no file of its kind is damage, too.
POINT_SEEDS = {
    "coco": json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.png"}],
            "annotations": [
                {"image_id": 1, "category_id": 1, "keypoints": [1.5, 2, 2], "bbox": [1, 2, 0, 0]},
                {"image_id": 1, "category_id": 1, "bbox": [1, 2, 4, 4]},
            ],
            "categories": [{"id": 1, "name": "head", "keypoints": ["head"]}],
        }
    ).encode(),
    "labelme": json.dumps(
        {
            "imagePath": "a.png",
            "shapes": [{"label": "head", "shape_type": "point", "points": [[1.5, 2]]}],
        }
    ).encode(),
    "label studio": json.dumps(
        [
            {
                "data": {"image": "/data/local-files/?d=a.png"},
                "annotations": [
                    {
                        "result": [
                            {
                                "type": "keypointlabels",
                                "original_width": 64,
                                "original_height": 48,
                                "value": {"x": 10.5, "y": 2, "keypointlabels": ["head"]},
                            }
                        ]
                    }
                ],
            }
        ]
    ).encode(),
    "via": json.dumps(
        {
            "a.png12": {
                "filename": "a.png",
                "regions": [{"shape_attributes": {"name": "point", "cx": 1.5, "cy": 2}}],
            }
        }
    ).encode(),
    "via table": b"filename,region_count,region_shape_attributes\n"
    b'a.png,1,"{""name"":""point"",""cx"":1,""cy"":2}"\n',
    "cclabeler": b'{"img_id": "a.png", "human_num": 1, "points": [{"x": 1.5, "y": 2}]}',
    "cvat": b'<?xml version="1.0"?><annotations><image name="a.png"><points label="head" '
    b'points="1.5,2"/><box label="head" xtl="1" ytl="2" xbr="3" ybr="4"/></image></annotations>',
    "yolo": b"0 0.5 0.25 0.1 0.1\n0 0.75 0.5 0.1 0.1\n",
    "npy": npy(HEADS),
    "semicolons": "file;x;y\na.png;1,5;2\n".encode("utf-16"),
    "mat": mat(),
    "packed mat": mat(compress=True),
    "csv": b"image,x,y\r\na.png,1.5,2\r\na.png,12.25,4\r\nb.png,,\r\n",
    "columns": b"1.5 2.0 10 12 0 0\n12.25 4.0 9 9 1 0\n",
    "list": json.dumps(HEADS.tolist()).encode(),
    "json": json.dumps({"a.png": HEADS.tolist(), "b.png": []}).encode(),
    "records": json.dumps(
        {"image": "a.png", "points": [{"x": x, "y": y} for x, y in HEADS.tolist()]}
    ).encode(),
    "lines": b"".join(
        json.dumps({"image": name, "points": HEADS.tolist()}).encode() + b"\n"
        for name in ("a.png", "b.png")
    ),
}
KEYS = {"mat": ("annPoints", "image_info[0][0][0][0][0]", "points"), "mat-frames": ("image_info",)}

IMAGES_EACH, READERS_EACH, TABLES_EACH = 80, 160, 100
PREPARED_IMAGES, PREPARED_COPIES, PREPARED_POINTS = 48, 24, 24
RECIPES, RUN_FILES, TABLES_OF_BINS, BINS_FILES = 80, 80, 160, 160
MANIFESTS, POINTS, BLOCKS, JOURNALS, LISTS = 96, 80, 96, 30, 96
DESCRIPTIONS, CARDS, WEIGHTS, WEIGHTS_EACH, STATES, RUNS_EACH = 64, 64, 24, 96, 96, 48
COMMANDS_EACH = 8


def test_there_are_thousands():
    drawn = IMAGES_EACH * len(formats() - {"HEIF"})
    drawn += READERS_EACH * len(READERS) + TABLES_EACH * len(TABLES)
    drawn += PREPARED_IMAGES + PREPARED_COPIES + PREPARED_POINTS * len(ANNOTATIONS)
    drawn += RECIPES + RUN_FILES + TABLES_OF_BINS + BINS_FILES
    drawn += MANIFESTS + POINTS + BLOCKS + JOURNALS + LISTS + DESCRIPTIONS + CARDS + STATES
    drawn += WEIGHTS + WEIGHTS_EACH * len(WEIGHTS_FILES) + RUNS_EACH * len(RUN_PARTS)
    assert drawn >= 3000


# ---- images and annotations, one by one


@pytest.mark.parametrize("format", sorted(formats()))
def test_images(format):
    for what, content in damaged(image_seeds(format), count=IMAGES_EACH):
        pixels = refused_or(lambda c=content: load_image(c, name="it"), what=what)
        header = refused_or(lambda c=content: image_header(c, name="it"), what=what)
        checked = refused_or(lambda c=content: check_pixels(c, name="it"), what=what)
        for outcome in (pixels, header, checked):
            assert not isinstance(outcome, Exception) or str(outcome).startswith("it: "), what
        # What passes the check and is copied can be trained on; its points fit its header.
        if checked is None or isinstance(pixels, np.ndarray):
            assert isinstance(pixels, np.ndarray), what
            assert pixels.shape == (header.height, header.width, 3), what


def are_points(found: np.ndarray) -> bool:
    """Whether they are (n, 2) floats. Those that are no place are counted and left out later."""
    return found.dtype == np.float64 and found.ndim == 2 and found.shape[1] == 2


@pytest.mark.parametrize("reader", sorted(READERS))
def test_annotations(reader):
    keys = KEYS.get(reader, ("",))
    for number, (what, content) in enumerate(damaged(POINT_SEEDS, count=READERS_EACH)):
        read = PointsFormat(reader=reader, key=keys[number % len(keys)]).read
        outcome = refused_or(lambda c=content, r=read: r(c), what=what, refusal=ValueError)
        assert isinstance(outcome, ValueError) or are_points(outcome), what


@pytest.mark.parametrize("reader", sorted(TABLES))
def test_tables(reader):
    (key,) = KEYS.get(reader, ("",))
    table = PointsFormat(reader=reader, key=key)
    for what, content in damaged(POINT_SEEDS, count=TABLES_EACH):
        with in_time(what):
            table.is_table_of_points(content)
        outcome = refused_or(lambda c=content: table.read_table(c), what=what, refusal=ValueError)
        if not isinstance(outcome, ValueError):
            assert all(are_points(points) for points in outcome.values()), what


# ---- whole folders


def write_own(folder: Path, *, table: str) -> Path:
    """Own images with one table: a file's place is the path below it."""
    folder.mkdir()
    for name, seed in (("a.png", 1), ("b.png", 2)):
        colours(seed=seed).save(folder / name)
    file = f"heads.{table}"
    (folder / file).write_bytes(POINT_SEEDS[table])
    return folder / file


def write_street(folder: Path, *, compress: bool) -> Path:
    """Images with a MATLAB file each, in the layout of ShanghaiTech."""
    images, truth = folder / "train_data" / "images", folder / "train_data" / "ground-truth"
    images.mkdir(parents=True)
    truth.mkdir()
    for k in (1, 2):
        colours(seed=k).save(images / f"IMG_{k}.jpg")
        (truth / f"GT_IMG_{k}.mat").write_bytes(mat(compress=compress))
    return truth / "GT_IMG_2.mat"


ANNOTATIONS: dict[str, Callable[[Path], Path]] = {
    "csv": lambda folder: write_own(folder, table="csv"),
    "json": lambda folder: write_own(folder, table="json"),
    "mat": lambda folder: write_street(folder, compress=False),
    "packed mat": lambda folder: write_street(folder, compress=True),
}
"""What writes a folder that can be prepared, and gives the file in it that is damaged."""


RECIPE = b"""
title = "Street"
homepage = "https://example.org"
licence = "free"
citation = "nobody"
points = { reader = "table", order = "xy" }
resize = { short_side_min = 16, long_side_max = 64, multiple_of = 8 }
splits.train = { images = "*.png", points = ["*.csv", "*.json", "*.jsonl"], expect_images = 2 }
validation = { group = "{group}.png" }
releases.first = { train = 2 }
"""
"""How own images with one table are laid out, and that they stay small."""


def prepare(source: Path, out: Path, what: str, *, recipe: Path | None = None) -> None:
    """Prepare a folder of which a file is damaged; what is left must be whole, or unfinished."""
    outcome = refused_or(lambda: preprocess(source, out=out, dataset=recipe), what=what)
    if isinstance(outcome, Exception):
        assert str(outcome), what
        assert not (out / MANIFEST).exists(), what
    else:
        assert not (out / JOURNAL).exists(), what
        data = PreparedDataset.open(out)
        for record in data.manifest.images:
            sample = data.sample(record)
            assert sample.image.shape == (record.height, record.width, 3), what
            assert len(sample.points) == record.heads, what
            assert sha256_file(data.image_path(record)) == record.sha256.image, what
    assert no_temporary_files(out.parent), what
    shutil.rmtree(out, ignore_errors=True)


def no_temporary_files(folder: Path) -> bool:
    return not [path for path in folder.rglob(".*") if path.is_file()]


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "street.toml"
    path.write_bytes(RECIPE)
    return path


def test_preparing_damaged_images(tmp_path, recipe):
    source = write_own(tmp_path / "own", table="csv").parent
    seeds = {}
    for format in sorted(formats() - {"HEIF"}):
        seeds |= image_seeds(format)
    for what, content in damaged(seeds, count=PREPARED_IMAGES):
        (source / "b.png").write_bytes(content)
        prepare(source, tmp_path / "out", what, recipe=recipe)


def test_preparing_damaged_copies(tmp_path):
    # Images that need no resize are copied, not written anew.
    source = tmp_path / "own"
    source.mkdir()
    flat = Image.new("RGB", (448, 448), "teal")
    (source / "heads.csv").write_bytes(b"image,x,y\nb.png,3,4\n")
    seeds = {each: encoded(flat, each) for each in ("JPEG", "PNG", "WEBP")}
    for what, content in damaged(seeds, count=PREPARED_COPIES):
        (source / "b.png").write_bytes(content)
        prepare(source, tmp_path / "out", what)


@pytest.mark.parametrize("kind", ANNOTATIONS)
def test_preparing_damaged_annotations(kind, tmp_path, recipe):
    file = ANNOTATIONS[kind](tmp_path / "set")
    for what, content in damaged({kind: file.read_bytes()}, count=PREPARED_POINTS):
        file.write_bytes(content)
        known = recipe if "mat" not in kind else None
        prepare(tmp_path / "set", tmp_path / "out", what, recipe=known)


def test_preparing_by_damaged_recipes(tmp_path, recipe):
    source = write_own(tmp_path / "own", table="csv").parent
    for what, content in damaged({"recipe": RECIPE}, count=RECIPES):
        recipe.write_bytes(content)
        prepare(source, tmp_path / "out", what, recipe=recipe)


# ---- our own files


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A prepared set of two images, with bins."""
    parent = tmp_path_factory.mktemp("prepared")
    source = write_own(parent / "source", table="csv").parent
    preprocess(source, out=parent / "own")
    data = PreparedDataset.open(parent / "own")
    write_bins(data, make_bins([data], block=8))
    return data


def json_damages(name: str, content: bytes, *, count: int) -> Iterator[tuple[str, bytes]]:
    """Half of them by what is wrong with bytes, half by what is wrong with values."""
    yield from damaged({name: content}, count=count // 2)
    yield from damaged({name: content}, count=count - count // 2, ways=(rewritten,))


def test_manifests(small, tmp_path):
    path = shutil.copytree(small.folder, tmp_path / "own") / MANIFEST

    def use() -> None:
        data = PreparedDataset.open(path.parent)
        for split in data.splits:
            for record in data.records(split):
                data.sample(record)
        make_bins([data], block=8)
        make_bins([data], block=16)
        summaries(data)

    for what, content in json_damages("manifest", path.read_bytes(), count=MANIFESTS):
        path.write_bytes(content)
        outcome = refused_or(use, what=what)
        assert outcome is None or str(path.parent) in str(outcome), what
        refused_or(lambda: verify(path.parent), what=what)


def test_prepared_points(small, tmp_path):
    folder = shutil.copytree(small.folder, tmp_path / "own")
    data = PreparedDataset.open(folder)
    record = data.manifest.images[0]
    path = folder / record.split / "points" / f"{record.file}.npy"
    for what, content in damaged({"points": path.read_bytes()}, count=POINTS):
        path.write_bytes(content)
        outcome = refused_or(lambda: data.points(record), what=what)
        if isinstance(outcome, Exception):
            assert str(path) in str(outcome), what
        else:
            assert outcome.shape == (record.heads, 2), what
            assert np.isfinite(outcome).all(), what


def test_prepared_blocks(small, tmp_path):
    # Their hash is made to fit, so that it is not all that is wrong with them.
    folder = shutil.copytree(small.folder, tmp_path / "own")
    record = small.manifest.images[0]
    path = folder / record.split / "blocks" / f"{record.file}.npz"
    for what, content in damaged(
        {"blocks": path.read_bytes()}, count=BLOCKS, ways=(*DAMAGES, claiming)
    ):
        path.write_bytes(content)
        hashes = dataclasses.replace(record.sha256, blocks=sha256_file(path))
        told = dataclasses.replace(record, sha256=hashes)
        with in_time(what):
            list(record_problems(told, folder=folder, manifest=small.manifest))


def test_lists_of_images(tmp_path):
    source = write_own(tmp_path / "own", table="csv").parent
    recipe = tmp_path / "street.toml"
    listed = b'images = "{id}.png", list = "all.txt"'
    recipe.write_bytes(RECIPE.replace(b'images = "*.png"', listed))
    seeds = {"list": b"b 1\na,2\n", "numbers": b"1\n002\n10 x\n"}
    for what, content in damaged(seeds, count=LISTS):
        (source / "all.txt").write_bytes(content)
        prepare(source, tmp_path / "out", what, recipe=recipe)


def test_journals(small, tmp_path):
    manifest = json.loads((small.folder / MANIFEST).read_bytes())
    keys = ("name", "recipe", "settings", "resize", "points")
    start = {"origin": {key: manifest[key] for key in keys}, "versions": manifest["versions"]}
    lines = [journal_line(each).encode() for each in (start, *manifest["images"])]
    source = write_own(tmp_path / "own", table="csv").parent
    for what, content in damaged({"journal": b"".join(lines)}, count=JOURNALS):
        out = shutil.copytree(small.folder, tmp_path / "out")
        (out / MANIFEST).unlink()
        (out / JOURNAL).write_bytes(content)
        prepare(source, out, what)


def test_bins_files(small, tmp_path):
    path = tmp_path / "bins-r8.json"
    content = (small.folder / path.name).read_bytes()
    for what, mutated in json_damages("bins", content, count=BINS_FILES):
        path.write_bytes(mutated)
        table = refused_or(lambda: BinsTable.from_file(path), what=what)
        if isinstance(table, Exception):
            assert str(path) in str(table), what
            continue
        path.write_text(json.dumps(table.to_json()))
        assert BinsTable.from_file(path) == table, what
        assert len(table.blocks) == len(table.bins.values), what
        table.bins.classify(torch.tensor([0.0, 3.0]))


WRITTEN_TABLES = {
    ".json": b'{"starts": [0, 1, 2, 4], "values": [0.0, 1.0, 2.5, 5], "block": 8}',
    ".toml": b"starts = [0, 1, 2, 4]\nvalues = [0, 1.0, 2.5, 5.0]\nblock = 8\n",
}


@pytest.mark.parametrize("ending", WRITTEN_TABLES)
def test_tables_of_bins(ending, small, tmp_path):
    path = tmp_path / f"mine{ending}"
    seeds = {ending: WRITTEN_TABLES[ending]}
    for what, content in damaged(seeds, count=TABLES_OF_BINS // len(WRITTEN_TABLES)):
        path.write_bytes(content)
        table = refused_or(lambda: read_table(path), what=what)
        if isinstance(table, Exception):
            assert str(path) in str(table), what
            continue
        refused_or(lambda t=table: make_bins([small], block=8, policy=t), what=what)


RUN_FILE = b"""
[model]
backbone = "timm:test_resnet"
block = 8
neck_width = 8
normalisation = "half"

[loss]
count = "mse"
count_weight = 0.5

[optim]
lr = 1e-4

[train]
epochs = 3
seed = 1
"""


def test_run_files(tmp_path):
    path = tmp_path / "run.toml"
    for what, content in damaged({"run file": RUN_FILE}, count=RUN_FILES):
        path.write_bytes(content)
        outcome = refused_or(lambda: load_run_config(config=path), what=what)
        assert not isinstance(outcome, Exception) or str(outcome), what


@pytest.fixture
def copied_checkpoint(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "tiny")


def test_descriptions_of_checkpoints(copied_checkpoint):
    path = copied_checkpoint / "config.json"
    for what, content in json_damages("config", path.read_bytes(), count=DESCRIPTIONS):
        path.write_bytes(content)
        outcome = refused_or(lambda: load(copied_checkpoint, device="cpu"), what=what)
        if isinstance(outcome, Exception):
            assert str(copied_checkpoint) in str(outcome), what
        else:
            refused_or(lambda c=outcome: c.count(np.asarray(colours())), what=what)


CARD = {
    "name": "street",
    "provenance": {
        "data": ["own"],
        "training_images": 2,
        "mean_heads": 1.5,
        "selected_on": "val",
        "fold": 1,
        "init": {"name": "earlier", "weights_sha256": "00"},
        "imported": {"file": "published.pth", "sha256": "00"},
        "assumed": {"bins": "sha", "block": 8, "window": 224, "normalisation": "clip"},
        "torch": "2.7",
        "epoch": 3,
    },
    "metrics": {"val": {"mae": 1.0, "rmse": 2.0, "nae": 0.5, "images": 1}},
    "settings": {"model": {"weights": "/home/me/w.pth"}, "train": {"init": "runs/earlier"}},
    "text": {
        "title": "Streets",
        "licence": "MIT",
        "data": [{"name": "own", "terms": "free", "images": 2}],
        "metrics": [{"data": "own", "images": 2, "mae": 1, "rmse": 2, "command": "eval"}],
        "speed": [{"image": "VGA", "machine": "laptop", "seconds": 1, "command": "predict"}],
        "known_failures": ["fog"],
    },
}


def test_cards(copied_checkpoint, workplace):
    path = copied_checkpoint / "config.json"
    described = json.loads(path.read_bytes())
    described["card"] |= CARD
    run = shutil.copytree(copied_checkpoint, workplace / "runs/run/best").parent
    (run / RECORD).touch()

    whole = read_card(copied_checkpoint)

    def use() -> None:
        shown = dataclasses.replace(whole, description=describe(copied_checkpoint))
        json.dumps(shown.to_json())
        "\n".join(card_lines(shown)).encode()

    for what, content in json_damages("config", json.dumps(described).encode(), count=CARDS):
        path.write_bytes(content)
        outcome = refused_or(use, what=what)
        assert outcome is None or str(copied_checkpoint) in str(outcome), what
        (run / "best" / path.name).write_bytes(content)
        with in_time(what):
            list_checkpoints()


def test_weights(copied_checkpoint):
    path = copied_checkpoint / "model.safetensors"
    for what, content in damaged({"weights": path.read_bytes()}, count=WEIGHTS):
        path.write_bytes(content)
        outcome = refused_or(lambda: load_checkpoint(copied_checkpoint), what=what)
        assert not isinstance(outcome, Exception) or str(path) in str(outcome), what


def torchscript() -> bytes:
    """An archive as ``torch.jit`` writes it, with a module inside a module."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
        module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
        torch.jit.save(torch.jit.script(module), content)
    return content.getvalue()


def pytorch(*, archive: bool) -> bytes:
    content = io.BytesIO()
    state = {"epoch": 3, "state_dict": {"a.weight": torch.ones(2, 3), "a.bias": torch.ones(2)}}
    torch.save(state, content, _use_new_zipfile_serialization=archive)
    return content.getvalue()


WEIGHTS_FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "safetensors": (".safetensors", lambda: to_safetensors({"a.weight": torch.ones(2, 3)})),
    "pytorch": (".pth", lambda: pytorch(archive=True)),
    "early pytorch": (".pth", lambda: pytorch(archive=False)),
    "torchscript": (".pt", torchscript),
    "pickle": (".pkl", lambda: pickle.dumps({"a.weight": [1.0, 2.0]})),
}
"""The files of weights that people bring, with their endings."""


def claiming(content: bytes, rng: random.Random) -> bytes:
    """A zip archive whose directory claims other sizes, places, names or flags of one file."""
    start = rng.choice([found.start() for found in re.finditer(b"PK\x01\x02", content)])
    at, length = rng.choice([(8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (42, 4)])
    claim = rng.choice([b"\xff", b"\x00", b"\x01", b"\x7f", rng.randbytes(1)]) * length
    damaged = content[: start + at] + claim + content[start + at + length :]
    if rng.random() < 0.3 and len(damaged) > 22:
        end = damaged.rfind(b"PK\x05\x06")
        at, length = rng.choice([(8, 2), (10, 2), (12, 4), (16, 4), (20, 2)])
        damaged = damaged[: end + at] + rng.randbytes(length) + damaged[end + at + length :]
    return damaged


def repacked(content: bytes, rng: random.Random) -> bytes:
    """A zip archive that is whole, with one file in it damaged, renamed, packed or left out."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(packed, "w") as target:
        chosen = rng.choice(source.namelist())
        for name in source.namelist():
            inner = source.read(name)
            kind = zipfile.ZIP_STORED
            if name == chosen:
                way = rng.choice(["damage", "damage", "damage", "name", "pack", "leave out"])
                if way == "damage" and inner:
                    inner = rng.choice(DAMAGES)(inner, rng)
                elif way == "name":
                    name = rng.choice(["x", "../x", f"{name}/x", "a/b/data.pkl"])
                elif way == "pack":
                    kind = zipfile.ZIP_DEFLATED
                elif way == "leave out":
                    continue
            target.writestr(name, inner, compress_type=kind)
    return packed.getvalue()


@pytest.mark.parametrize("kind", WEIGHTS_FILES)
def test_weights_of_others(kind, tmp_path):
    ending, write = WEIGHTS_FILES[kind]
    path = tmp_path / f"weights{ending}"
    content = write()
    archive = zipfile.is_zipfile(io.BytesIO(content))
    ways = (*DAMAGES, claiming, repacked, repacked) if archive else DAMAGES
    for what, mutated in damaged({kind: content}, count=WEIGHTS_EACH, ways=ways):
        path.write_bytes(mutated)
        outcome = refused_or(lambda: read_tensors(path), what=what)
        if isinstance(outcome, Exception):
            assert str(path) in str(outcome), what
        else:
            assert all(isinstance(name, str) for name in outcome.tensors), what


# ---- runs


@pytest.fixture(scope="module")
def begun(prepared, tmp_path_factory):
    """A run of two epochs that was stopped in the second."""
    out = tmp_path_factory.mktemp("begun") / "run"
    # Training leaves bins beside the data.
    data = PreparedDataset.open(shutil.copytree(prepared.folder, out.parent / "square"))
    stop = iter([False, False, True])
    config = tiny_config(train__epochs=2)
    train(config, [data], out=out, device="cpu", should_stop=lambda: next(stop, True))
    assert (out / STATE).is_file()
    return out


RUN_PARTS = (RECORD, SETTINGS, LOG)


def log_damages(content: bytes, *, count: int) -> Iterator[tuple[str, bytes]]:
    """Damaged logs: one value of a line, or any bytes."""
    for what, line in json_damages("log", content.splitlines()[0], count=count):
        yield what, line + b"\n"


@pytest.mark.parametrize("part", RUN_PARTS)
def test_runs(part, begun, workplace):
    run = shutil.copytree(begun, workplace / "runs/run")
    shutil.copytree(run, "runs/other")
    content = (run / part).read_bytes()
    damages = {
        RECORD: lambda: json_damages(RECORD, content, count=RUNS_EACH),
        LOG: lambda: log_damages(content, count=RUNS_EACH),
        SETTINGS: lambda: damaged({SETTINGS: content}, count=RUNS_EACH),
    }[part]()
    other = RunFolder.open(Path("runs/other"))

    def use() -> None:
        opened = RunFolder.open(run)
        json.dumps(dataclasses.asdict(summary(opened)))
        compared = compare([opened, other])
        json.dumps(dataclasses.asdict(compared))
        data_of_run(opened)

    for what, mutated in damages:
        (run / part).write_bytes(mutated)
        outcome = refused_or(use, what=what)
        assert outcome is None or str(outcome), what
        with in_time(what):
            runs, problems = list_runs()
            assert len(runs) + len(problems) == 2, what
            find_run("auto")


def test_states(begun, tmp_path):
    # The tensors of a learner are many, and damage to them would seldom meet anything else.
    state = torch.load(begun / STATE, weights_only=True)
    state["learner"] = {"model": {"a": torch.ones(2)}, "progress": state["learner"]["progress"]}
    small = tmp_path / STATE
    torch.save(state, small)
    leave = shutil.ignore_patterns("last", "best", "curves.png", STATE)
    run = RunFolder.open(shutil.copytree(begun, tmp_path / "run", ignore=leave))
    path, log = run.folder / STATE, (run.folder / LOG).read_bytes()
    ways = (*DAMAGES, claiming, repacked, repacked)
    for what, mutated in damaged({"state": small.read_bytes()}, count=STATES, ways=ways):
        path.write_bytes(mutated)
        outcome = refused_or(run.rewind, what=what)
        if isinstance(outcome, Exception):
            assert str(path) in str(outcome), what
            assert (run.folder / LOG).read_bytes() == log, what
        (run.folder / LOG).write_bytes(log)


# ---- whole commands


@pytest.fixture
def shell(workplace, small, checkpoint):
    """A working directory with one file of every kind that a person may hand to us."""
    write_own(workplace / "own", table="json")
    shutil.copytree(small.folder, workplace / "data" / "own")
    shutil.copytree(checkpoint, workplace / "tiny")
    (workplace / "street.toml").write_bytes(RECIPE)
    (workplace / "run.toml").write_bytes(RUN_FILE)
    for ending, content in WRITTEN_TABLES.items():
        (workplace / f"mine{ending}").write_bytes(content)
    return workplace


COMMANDS = {
    "preprocess own --out new": "own/heads.json",
    "preprocess own --out new --force": "own/b.png",
    "preprocess own --out new --recipe street.toml": "street.toml",
    "preprocess --verify data/own": "data/own/manifest.json",
    "datasets check own": "own/heads.json",
    "bins --data data/own --table mine.json --dry-run": "mine.json",
    "bins --data data/own --table mine.toml -o -": "mine.toml",
    "bins --data data/own": "data/own/bins-r8.json",
    "train --data data/own --config run.toml --no-pretrained --dry-run": "run.toml",
    "predict own/a.png own/b.png --checkpoint tiny --json": "own/b.png",
    "predict own/a.png --checkpoint tiny --json": "tiny/config.json",
    "predict own/a.png --checkpoint tiny --json --heatmap --force": "tiny/model.safetensors",
    "eval --data data/own --checkpoint tiny --split train --json": "data/own/manifest.json",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command, shell, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["crowdcount", *command.split()])
    path = shell / COMMANDS[command]
    for what, content in damaged({path.name: path.read_bytes()}, count=COMMANDS_EACH):
        path.write_bytes(content)
        code = refused_or(main, what=what, refusal=SystemExit)
        out, err = capfd.readouterr()
        assert code is None or code.code in range(9), what
        assert "Traceback" not in err, what
        assert code is None or not code.code or "error: " in err, what
        if "--json" in command and out:
            json.loads(out, parse_constant=pytest.fail)
        assert no_temporary_files(shell), what


def test_the_clock_can_fail(monkeypatch):
    monkeypatch.setitem(globals(), "SECONDS", 0.05)
    with pytest.raises(TookTooLongError, match="a nap"), in_time("a nap"):
        time.sleep(1)
