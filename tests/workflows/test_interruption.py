"""A preparation can be ended at any moment, by any signal, and the same command finishes it."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from crowdcount.data.prepared.manifest import JOURNAL, MANIFEST
from crowdcount.workflows.preprocess import preprocess
from crowdcount.workflows.verify import verify

IMAGES = {"train": 48, "test": 12}
"""Enough to be in the midst of them when the signal comes; every other one is resized."""

TOTAL = sum(IMAGES.values())
KILLS = 6


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("source") / "street"
    random_ = np.random.default_rng(5)
    for split, images in IMAGES.items():
        (root / split).mkdir(parents=True)
        rows = ["image,x,y"]
        for k in range(images):
            size = (640, 480) if k % 2 else (400, 300)
            noise = random_.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).resize(size).save(root / split / f"{k}.jpg")
            heads = random_.uniform(0, size, (random_.integers(1, 40), 2))
            rows += [f"{k}.jpg,{x},{y}" for x, y in heads]
        (root / split / "heads.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """Hashes of what a run that nobody disturbs makes."""
    (result,) = preprocess(source, out=tmp_path_factory.mktemp("whole") / "street")
    return tree(result.folder)


def tree(folder):
    """Hash of every file, by its path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def started(source, out):
    """The command, in a process group of its own."""
    argv = ["preprocess", str(source), "--out", str(out), "--jobs", "2"]
    return subprocess.Popen(
        [sys.executable, "-m", "crowdcount", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def noted(out):
    """Images in the journal; all of them where a run was finished, none where none began."""
    if (out / MANIFEST).exists():
        return TOTAL
    try:
        return max((out / JOURNAL).read_bytes().count(b"\n") - 1, 0)
    except FileNotFoundError:
        return 0


def wait_until(process, out, images):
    while process.poll() is None and noted(out) < images:
        time.sleep(0.0005)


def test_kills_at_random_moments_leave_no_trace(source, whole, tmp_path):
    draw = random.Random(11)
    out = tmp_path / "out"
    # Moments as images that are done, so that they lie in the work whatever the machine's speed:
    # the first ones before or at its beginning, the others wherever they fall.
    moments = sorted([0, 0, *(draw.randint(1, int(0.9 * TOTAL)) for _ in range(KILLS - 2))])
    killed = 0
    for number, images in enumerate(moments):
        with started(source, out) as process:
            wait_until(process, out, images)
            time.sleep(draw.uniform(0, 0.004 if images else 0.5))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        killed += process.returncode == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL), process.stderr
        # What is left is finished in a copy; the next kill falls on the original.
        copy = tmp_path / f"copy{number}"
        if out.exists():
            shutil.copytree(out, copy)
        preprocess(source, out=copy, jobs=2)
        assert tree(copy) == whole, (number, images)
        if process.returncode == 0:
            shutil.rmtree(out)
    # A busy machine may let a run end before its kill, but not most of them.
    assert killed > KILLS // 2
    preprocess(source, out=out, jobs=2)
    assert tree(out) == whole
    verify(out)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_stops_cleanly_and_says_how_to_go_on(source, whole, tmp_path, number, code):
    out = tmp_path / "out"
    for _ in range(5):  # a busy machine may let a run end before its signal
        with started(source, out) as process:
            wait_until(process, out, 5)
            if process.poll() is None:
                os.killpg(process.pid, number)
            stdout, stderr = process.communicate()
        if process.returncode:
            break
        shutil.rmtree(out)
    assert process.returncode == code, stderr
    assert stdout == b""
    assert f"{number.name}: stopped; run the same command again" in stderr.decode()
    assert b"Traceback" not in stderr
    assert not (out / MANIFEST).exists()
    assert not [path for path in out.rglob(".*") if path.is_file()]
    kept = noted(out)
    assert kept >= 5
    (result,) = preprocess(source, out=out)
    assert result.unchanged >= kept
    assert tree(out) == whole


@pytest.fixture(scope="module")
def mended(scenes, tmp_path_factory):
    """Hashes of the scenes, prepared without an end in between."""
    (result,) = preprocess(scenes, out=tmp_path_factory.mktemp("mended") / "scenes")
    return tree(result.folder)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("module", "step"),
    [
        ("preprocess", "start_journal"),
        ("scan", "add_record"),
        ("preprocess", "remove_unlisted"),
        ("preprocess", "write_json"),
    ],
)
@pytest.mark.parametrize("again", [False, True], ids=["new", "mending"])
def test_an_end_between_any_two_steps_is_mended(
    scenes, mended, tmp_path, monkeypatch, module, step, done, again
):
    out = tmp_path / "out"
    if again:
        preprocess(scenes, out=out, jobs=2)
        (out / "train/images/scene_0003.jpg").write_bytes(b"damaged")

    def ends(*arguments, **named):
        if done:
            original(*arguments, **named)
        raise KeyboardInterrupt

    calling = sys.modules[f"crowdcount.workflows.{module}"]
    original = getattr(calling, step)
    with monkeypatch.context() as patch:
        patch.setattr(calling, step, ends)
        with pytest.raises(KeyboardInterrupt):
            preprocess(scenes, out=out, jobs=2)
    preprocess(scenes, out=out, jobs=2)
    assert tree(out) == mended
