import io
import json
import random
import re
import shutil
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import JOURNAL, MANIFEST, prepared_paths, read_manifest
from crowdcount.data.prepared.verify import folder_problems, manifest_problems, record_problems
from crowdcount.data.prepared.versions import versions_now
from crowdcount.files import sha256_bytes


def problems(folder, manifest):
    found = [*manifest_problems(manifest), *folder_problems(folder, manifest)]
    for each in manifest.images:
        found += record_problems(each, folder=folder, manifest=manifest)
    return found


@pytest.fixture
def copy(prepared, tmp_path):
    return PreparedDataset.open(shutil.copytree(prepared.folder, tmp_path / "copy"))


def files_of(folder):
    return sorted(path for split in ("train", "test") for path in (folder / split).rglob("*.*"))


def with_record(manifest, record):
    images = (record, *manifest.images[1:])
    return replace(manifest, images=images)


def rewritten(data, which, content):
    """Put other content into a file of the first image, and let the manifest agree with it."""
    record = data.manifest.images[0]
    index = ("image", "points", "blocks").index(which)
    prepared_paths(data.folder, split=record.split, file=record.file)[index].write_bytes(content)
    hashes = replace(record.sha256, **{which: sha256_bytes(content)})
    return with_record(data.manifest, replace(record, sha256=hashes))


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def npz(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def blocks(data):
    record = data.manifest.images[0]
    path = prepared_paths(data.folder, split=record.split, file=record.file)[2]
    with np.load(path) as counts:
        return {"raw": counts["raw"], "corrected": counts["corrected"]}


def test_what_was_prepared_has_no_problem(prepared):
    assert problems(prepared.folder, prepared.manifest) == []


@given(seed=st.integers(0, 10_000))
def test_any_byte_that_changes_in_any_file_is_found(prepared, tmp_path_factory, seed):
    draw = random.Random(seed)
    path = draw.choice(files_of(prepared.folder))
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= draw.randrange(1, 256)
    # The folder is shared with other tests, so the file is changed in a copy of its image alone.
    folder = tmp_path_factory.mktemp("changed")
    record = next(
        each
        for each in prepared.manifest.images
        if path in prepared_paths(prepared.folder, split=each.split, file=each.file)
    )
    for whole in prepared_paths(prepared.folder, split=record.split, file=record.file):
        target = folder / whole.relative_to(prepared.folder)
        target.parent.mkdir(parents=True)
        target.write_bytes(bytes(content) if whole == path else whole.read_bytes())
    (problem, *_) = record_problems(record, folder=folder, manifest=prepared.manifest)
    expected = f"{path.relative_to(prepared.folder)}: is not the file that was written"
    assert problem == expected


def test_any_file_that_is_gone_is_found(copy):
    for path in files_of(copy.folder):
        content = path.read_bytes()
        path.unlink()
        name = path.relative_to(copy.folder)
        assert problems(copy.folder, copy.manifest) == [f"{name}: No such file or directory"]
        path.write_bytes(content)


@pytest.mark.parametrize(
    "name", ["train/images/more.jpg", "test/more", "val/images/a.jpg", ".0a1b2c3d.manifest.json"]
)
def test_files_that_the_manifest_does_not_name_are_found(copy, name):
    path = copy.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    assert problems(copy.folder, copy.manifest) == [f"{name}: the manifest does not name it"]


def test_bins_and_notes_beside_the_manifest_may_be_there(copy):
    (copy.folder / "bins-r8.json").write_text("{}")
    (copy.folder / "notes").mkdir()
    assert problems(copy.folder, copy.manifest) == []


def test_an_interrupted_preparation_is_found(copy):
    (copy.folder / JOURNAL).write_text("")
    assert problems(copy.folder, copy.manifest) == [f"{JOURNAL}: a preparation was interrupted"]


EDITS = {
    "totals of images that are not there": (
        lambda m: replace(m, totals={**m.totals, "val": m.totals["test"]}),
        "val: the totals",
    ),
    "totals that are no sums": (
        lambda m: replace(
            m,
            totals={
                **m.totals,
                "test": replace(m.totals["test"], heads=m.totals["test"].heads + 1),
            },
        ),
        "test: the totals",
    ),
    "no totals": (lambda m: replace(m, totals={}), "train: the totals"),
    "an image twice": (lambda m: replace(m, images=(*m.images, m.images[0])), "occurs twice"),
    "a name held out that is not there": (
        lambda m: replace(m, held_out=("gone.jpg",)),
        r"gone\.jpg is not a training image",
    ),
    "a name held out twice": (
        lambda m: replace(m, held_out=m.held_out * 2),
        "held out: an image occurs twice",
    ),
    "a name of both held-out parts": (
        lambda m: replace(m, calibration=m.held_out),
        "held out: an image occurs twice",
    ),
    "a name for calibration that is not there": (
        lambda m: replace(m, calibration=("gone.jpg",)),
        r"gone\.jpg is not a training image",
    ),
    "everything held out": (
        lambda m: replace(
            m, held_out=tuple(each.file for each in m.images if each.split == "train")
        ),
        "every training image",
    ),
    "complete with reasons": (lambda m: replace(m, reasons=("x",)), "complete, with reasons"),
    "incomplete without": (lambda m: replace(m, complete=False), "incomplete, without"),
    "other heads": (lambda m: edited(m, heads=m.images[0].heads + 1), "heads, and the manifest"),
    "another size": (lambda m: edited(m, width=m.images[0].width + 8), "pixels, not"),
    "another correction": (lambda m: edited(m, heads_cut=m.images[0].heads_cut + 1), "correction"),
    "another m": (lambda m: replace(m, max_count=0), "raw ones up to 0"),
    "another block": (
        lambda m: replace(m, settings=replace(m.settings, block=16)),
        "block counts are not those",
    ),
    "a file elsewhere": (lambda m: edited(m, file="../../x.jpg"), "is in none"),
    "an absolute file": (lambda m: edited(m, file="/etc/hosts"), "is in none"),
    "a split of no name": (lambda m: edited(m, split=".."), "is in none"),
}


def edited(manifest, **changes):
    return with_record(manifest, replace(manifest.images[0], **changes))


@pytest.mark.parametrize("name", EDITS)
def test_a_manifest_that_is_not_so_is_found(prepared, name):
    edit, expected = EDITS[name]
    found = problems(prepared.folder, edit(prepared.manifest))
    assert any(re.search(expected, problem) for problem in found), found


def test_images_held_out_beside_a_validation_split_are_found(prepared):
    manifest = prepared.manifest
    val = tuple(replace(each, split="val") for each in manifest.images if each.split == "test")
    train = tuple(each for each in manifest.images if each.split == "train")
    changed = replace(manifest, images=(*train, *val))
    assert "held out: images, although there is a validation split" in list(
        manifest_problems(changed)
    )


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((448.0, 1.0), "outside the image"),
        ((-0.1, 1.0), "outside the image"),
        ((1.0, np.nan), "outside the image"),
        ((1.0, 1.0), "block counts are not those"),
    ],
)
def test_heads_of_a_manifest_that_fits_its_files_are_checked(copy, point, expected):
    points = copy.points(copy.manifest.images[0])
    points[0] = point
    manifest = rewritten(copy, "points", npy(points))
    (problem,) = problems(copy.folder, manifest)
    assert expected in problem


def test_block_counts_of_a_manifest_that_fits_its_files_are_checked(copy):
    counts = blocks(copy)
    counts["raw"][0, 0] += 1
    found = problems(copy.folder, rewritten(copy, "blocks", npz(**counts)))
    assert any("block counts are not those" in problem for problem in found)


def test_corrected_counts_of_a_manifest_that_fits_its_files_are_checked(copy):
    counts = blocks(copy)
    counts["corrected"][0, 0] += 1
    found = problems(copy.folder, rewritten(copy, "blocks", npz(**counts)))
    assert any("corrected counts are not the raw ones" in problem for problem in found)


@pytest.mark.parametrize("which", ["image", "points", "blocks"])
@pytest.mark.parametrize("content", [b"", b"x", npy(np.zeros(3)), npz(other=np.zeros(3))])
def test_files_of_another_kind_are_a_problem_and_no_crash(copy, which, content):
    manifest = rewritten(copy, which, content)
    assert problems(copy.folder, manifest) != []


def test_block_counts_that_unpack_to_gigabytes_are_not_unpacked(copy):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in ("raw", "corrected"):
            head = io.BytesIO()
            shape = {"descr": "<i4", "fortran_order": False, "shape": (10**5, 10**4)}
            np.lib.format.write_array_header_1_0(head, shape)
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as stream:
                stream.write(head.getvalue())
                for _ in range(50):
                    stream.write(bytes(1_000_000))
    manifest = rewritten(copy, "blocks", content.getvalue())
    tracemalloc.start()
    try:
        (problem,) = problems(copy.folder, manifest)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
    assert "block counts are not those" in problem


def test_nothing_is_written(copy):
    before = {path: path.stat().st_mtime_ns for path in copy.folder.rglob("*")}
    problems(copy.folder, copy.manifest)
    assert {path: path.stat().st_mtime_ns for path in copy.folder.rglob("*")} == before


def test_the_manifest_read_again_is_the_one_checked(copy):
    text = json.loads((copy.folder / MANIFEST).read_text())
    assert read_manifest(copy.folder) == copy.manifest
    assert set(text["versions"]) == set(versions_now())
