"""Two thousand damaged files: each is one error for people, or a result. Never anything else.

The damage is drawn from a fixed seed. Image formats, readers of points and readers of tables are
iterated, so that a new one is damaged on the day it is added.
"""

import io
import json
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import scipy.io
from PIL import Image

from crowdcount.data.images import IMAGE_SUFFIXES, check_pixels, image_header, load_image
from crowdcount.data.points import READERS, TABLES, PointsFormat
from crowdcount.data.prepared import JOURNAL, MANIFEST, PreparedDataset
from crowdcount.errors import ConfigError, CrowdCountError
from crowdcount.files import sha256_file
from crowdcount.models.checkpoint import load_checkpoint
from crowdcount.workflows.bins import BinsTable, make_bins, write_bins
from crowdcount.workflows.preprocess import preprocess

SECONDS = 5
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
    odd = rng.choice(
        [None, True, -1, 0, 0.5, 1e308, 10**30, 10**400, "", "x", "\0", "../../x", [], {}, [[]]]
    )
    if isinstance(holder, dict) and rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = odd
    return json.dumps(value).encode()


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
    for number in range(count):
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
        except (OSError, ValueError):
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


# Every reader gets every seed: what is no file of its kind is damage, too.
POINT_SEEDS = {
    "mat": mat(),
    "packed mat": mat(compress=True),
    "table": b"image,x,y\r\na.png,1.5,2\r\na.png,12.25,4\r\nb.png,,\r\n",
    "columns": b"1.5 2.0 10 12 0 0\n12.25 4.0 9 9 1 0\n",
    "list": json.dumps(HEADS.tolist()).encode(),
    "mapping": json.dumps({"a.png": HEADS.tolist(), "b.png": []}).encode(),
    "records": json.dumps(
        {"image": "a.png", "points": [{"x": x, "y": y} for x, y in HEADS.tolist()]}
    ).encode(),
    "lines": b"".join(
        json.dumps({"image": name, "points": HEADS.tolist()}).encode() + b"\n"
        for name in ("a.png", "b.png")
    ),
}
KEYS = ("annPoints", "image_info[0][0][0][0][0]", "points", "")

IMAGES_EACH, READERS_EACH, TABLES_EACH = 90, 250, 150
PREPROCESS_IMAGES, PREPROCESS_POINTS, MANIFESTS, BINS, CONFIGS = 120, 120, 240, 160, 100
WEIGHTS, ARRAYS, JOURNALS = 40, 80, 40


def test_there_are_two_thousand():
    fixed = PREPROCESS_IMAGES + PREPROCESS_POINTS + MANIFESTS + BINS + CONFIGS
    fixed += WEIGHTS + ARRAYS + JOURNALS
    drawn = IMAGES_EACH * len(formats() - {"HEIF"}) + READERS_EACH * len(READERS)
    assert fixed + drawn + TABLES_EACH * len(TABLES) >= 2000


@pytest.mark.parametrize("format", sorted(formats()))
def test_images(format):
    for what, content in damaged(image_seeds(format), count=IMAGES_EACH):
        with in_time(what):
            sizes = set()
            for use in (load_image, image_header):
                try:
                    seen = use(content, name="it")
                except CrowdCountError as error:
                    assert str(error).startswith("it: "), what
                    continue
                size = seen.shape[1::-1] if use is load_image else (seen.width, seen.height)
                sizes.add(size)
            # The points of an image are scaled by what its header says.
            assert len(sizes) < 2, what
            try:
                check_pixels(content, name="it")
            except CrowdCountError:
                continue
            load_image(content)  # what passes the check and is copied can be trained on


@pytest.mark.parametrize("reader", sorted(READERS))
def test_annotations(reader):
    for what, content in damaged(POINT_SEEDS, count=READERS_EACH):
        for key in KEYS:
            try:
                points_format = PointsFormat(reader=reader, key=key)
            except ConfigError:
                continue  # the reader does without a key, or not without one
            with in_time(what):
                try:
                    points = points_format.read(content)
                except (ValueError, CrowdCountError):
                    continue
                assert points.dtype == np.float64, what
                assert points.shape[1:] == (2,), what
                assert np.isfinite(points).all(), what


@pytest.mark.parametrize("reader", sorted(TABLES))
def test_tables(reader):
    for what, content in damaged(POINT_SEEDS, count=TABLES_EACH):
        points_format = PointsFormat(reader=reader)
        with in_time(what):
            try:
                points_format.is_table_of_points(content)
                table = points_format.read_table(content)
            except (ValueError, CrowdCountError):
                continue
            for points in table.values():
                assert np.isfinite(points).all(), what


# ---- whole folders


@pytest.fixture(scope="module")
def table_folder(tmp_path_factory):
    """Own images with one table: a file's place is the path below it."""
    folder = tmp_path_factory.mktemp("mutated") / "own"
    folder.mkdir()
    for name, seed in (("a.png", 1), ("b.png", 2)):
        colours(seed=seed).save(folder / name)
    (folder / "heads.csv").write_bytes(POINT_SEEDS["table"])
    return folder


@pytest.fixture(scope="module")
def mat_folder(tmp_path_factory):
    """Images with a MATLAB file each, in the layout of ShanghaiTech."""
    folder = tmp_path_factory.mktemp("mutated") / "street"
    images, truth = folder / "train_data" / "images", folder / "train_data" / "ground-truth"
    images.mkdir(parents=True)
    truth.mkdir()
    for k in (1, 2):
        colours(seed=k).save(images / f"IMG_{k}.jpg")
        (truth / f"GT_IMG_{k}.mat").write_bytes(mat(compress=k == 2))
    return folder


def prepare(source: Path, out: Path, what: str) -> None:
    """Prepare a folder of which a file is damaged; what is left must be whole, or unfinished."""
    with in_time(what):
        try:
            preprocess(source, out=out)
        except CrowdCountError as error:
            assert str(error), what
            assert not (out / MANIFEST).exists(), what
        else:
            assert not (out / JOURNAL).exists(), what
            data = PreparedDataset.open(out)
            for record in data.manifest.images:
                sample = data.sample(record)
                assert sample.image.shape == (record.height, record.width, 3), what
                assert len(sample.points) == record.heads, what
                assert sha256_file(data.image_path(record)) == record.sha256.image, what
    assert not [path for path in out.parent.rglob(".*") if path.is_file()], what


def prepare_damaged(
    folder: Path, tmp_path: Path, file: str, damages: Iterator[tuple[str, bytes]]
) -> None:
    source, out = tmp_path / folder.name, tmp_path / "out"
    shutil.copytree(folder, source)
    for what, content in damages:
        (source / file).write_bytes(content)
        prepare(source, out, what)
        shutil.rmtree(out, ignore_errors=True)


def test_preparing_damaged_images(table_folder, tmp_path):
    seeds = {}
    for format in sorted(formats() - {"HEIF"}):
        seeds |= image_seeds(format)
    damages = damaged(seeds, count=PREPROCESS_IMAGES)
    prepare_damaged(table_folder, tmp_path, "b.png", damages)


def test_preparing_damaged_copies(tmp_path):
    # Images that need no resize are copied, not written anew.
    source = tmp_path / "own"
    source.mkdir()
    flat = Image.new("RGB", (448, 448), "teal")
    (source / "heads.csv").write_bytes(b"image,x,y\nb.png,3,4\n")
    seeds = {each: encoded(flat, each) for each in ("JPEG", "PNG", "WEBP")}
    for what, content in damaged(seeds, count=30):
        (source / "b.png").write_bytes(content)
        prepare(source, tmp_path / "out", what)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_preparing_damaged_tables(table_folder, tmp_path):
    damages = damaged({"table": POINT_SEEDS["table"]}, count=PREPROCESS_POINTS // 2)
    prepare_damaged(table_folder, tmp_path, "heads.csv", damages)


def test_preparing_damaged_annotations(mat_folder, tmp_path):
    seeds = {name: POINT_SEEDS[name] for name in ("mat", "packed mat")}
    damages = damaged(seeds, count=PREPROCESS_POINTS // 2)
    prepare_damaged(mat_folder, tmp_path, "train_data/ground-truth/GT_IMG_2.mat", damages)


# ---- our own files


@pytest.fixture(scope="module")
def small(table_folder, tmp_path_factory):
    """A prepared set of two images, with bins."""
    folder = tmp_path_factory.mktemp("prepared") / "own"
    preprocess(table_folder, out=folder)
    data = PreparedDataset.open(folder)
    write_bins(data, make_bins([data], block=8))
    return data


def json_damages(name: str, content: bytes, *, count: int) -> Iterator[tuple[str, bytes]]:
    yield from damaged({name: content}, count=count // 2)
    yield from damaged({name: content}, count=count - count // 2, ways=(rewritten,))


def test_manifests(small, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(small.folder, folder)
    content = (folder / MANIFEST).read_bytes()
    for what, mutated in json_damages("manifest", content, count=MANIFESTS):
        (folder / MANIFEST).write_bytes(mutated)
        with in_time(what):
            try:
                data = PreparedDataset.open(folder)
                for split in data.splits:
                    for record in data.records(split):
                        data.sample(record)
                make_bins([data], block=8)
            except CrowdCountError as error:
                assert str(error), what


def test_prepared_points(small, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(small.folder, folder)
    data = PreparedDataset.open(folder)
    record = data.manifest.images[0]
    path = folder / record.split / "points" / f"{record.file}.npy"
    for what, content in damaged({"points": path.read_bytes()}, count=ARRAYS):
        path.write_bytes(content)
        with in_time(what):
            try:
                points = data.points(record)
            except CrowdCountError:
                continue
            assert points.shape == (record.heads, 2), what


def test_journals(table_folder, small, tmp_path):
    first = {
        key: json.loads((small.folder / MANIFEST).read_bytes())[key]
        for key in ("name", "recipe", "settings", "resize", "points")
    }
    records = json.loads((small.folder / MANIFEST).read_bytes())["images"]
    lines = [json.dumps(each).encode() + b"\n" for each in (first, *records)]
    for what, content in damaged({"journal": b"".join(lines)}, count=JOURNALS):
        out = tmp_path / "out"
        shutil.copytree(small.folder, out)
        (out / MANIFEST).unlink()
        (out / JOURNAL).write_bytes(content)
        prepare(table_folder, out, what)
        shutil.rmtree(out)


def test_bins_files(small, tmp_path):
    content = (small.folder / "bins-r8.json").read_bytes()
    path = tmp_path / "bins-r8.json"
    for what, mutated in json_damages("bins", content, count=BINS):
        path.write_bytes(mutated)
        with in_time(what):
            try:
                table = BinsTable.from_file(path)
            except CrowdCountError as error:
                assert str(path) in str(error), what
                continue
            assert BinsTable.from_file(path) == table, what
            table.empty_bins()
            json.dumps(table.to_json())


def test_descriptions_of_checkpoints(checkpoint, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(checkpoint, folder)
    content = (folder / "config.json").read_bytes()
    for what, mutated in json_damages("config", content, count=CONFIGS):
        (folder / "config.json").write_bytes(mutated)
        with in_time(what):
            try:
                load_checkpoint(folder)
            except CrowdCountError as error:
                assert str(folder) in str(error), what


def test_weights(checkpoint, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(checkpoint, folder)
    content = (folder / "model.safetensors").read_bytes()
    for what, mutated in damaged({"weights": content}, count=WEIGHTS):
        (folder / "model.safetensors").write_bytes(mutated)
        with in_time(what):
            try:
                load_checkpoint(folder)
            except CrowdCountError as error:
                assert str(folder) in str(error), what


def test_the_clock_can_fail(monkeypatch):
    monkeypatch.setitem(globals(), "SECONDS", 0.05)
    with pytest.raises(TookTooLongError, match="a nap"), in_time("a nap"):
        time.sleep(1)
