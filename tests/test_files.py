"""A file or folder is there whole or as it was before."""

import errno
import json
import os
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch

from crowdcount import files
from crowdcount.errors import BadInputError, UsageError
from crowdcount.files import (
    atomic_file,
    atomic_folder,
    check_format,
    copy_folder,
    naming,
    point_link,
    present_folder,
    read_json,
    read_toml,
    refuse_existing,
    restore_folder,
    sha256_bytes,
    sha256_file,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail():
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("save", [lambda stream: stream.write(b"new"), partial(torch.save, [1, 2])])
def test_a_full_disk_is_named_by_the_file_and_leaves_the_old_one(tmp_path, monkeypatch, save):
    path = tmp_path / "state.pt"
    write_text(path, "old")

    def temporary_on_a_full_disk(path):
        link = path.with_name(".01234567.state.pt")
        link.symlink_to("/dev/full")
        return link

    monkeypatch.setattr(files, "_temporary", temporary_on_a_full_disk)

    def write():
        with atomic_file(path) as temporary, temporary.open("wb") as stream:
            save(stream)

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert [each.name for each in tmp_path.iterdir()] == ["state.pt"]
    assert path.read_text() == "old"


def test_a_full_disk_is_named_by_the_folder_and_leaves_the_old_one(tmp_path):
    folder = tmp_path / "best"
    write_text(folder / "weights", "old")

    def write(error):
        with atomic_folder(folder) as temporary:
            (temporary / "weights").touch()
            raise error(temporary)

    for error in (
        lambda _: FULL,
        lambda temporary: OSError(errno.ENOSPC, "No space left", str(temporary / "weights")),
    ):
        with pytest.raises(OSError, match="No space left") as caught:
            write(error)
        assert caught.value.filename == str(folder)
        assert (folder / "weights").read_text() == "old"
        assert [each.name for each in tmp_path.iterdir()] == ["best"]


def test_errors_of_other_kinds_keep_their_own_words(tmp_path):
    for error in (RuntimeError("a bug"), FileNotFoundError(errno.ENOENT, "none", "input.png")):
        with pytest.raises(type(error)) as caught, naming(tmp_path / "output"):
            raise error
        assert caught.value is error


def test_a_device_is_written_to_and_stays(tmp_path):
    device = tmp_path / "null"
    device.symlink_to("/dev/null")
    refuse_existing(device, force=False)
    write_text(device, "nothing")
    assert device.is_char_device()
    assert [each.name for each in tmp_path.iterdir()] == ["null"]


def test_the_temporary_name_keeps_the_ending(tmp_path):
    with atomic_file(tmp_path / "sub" / "a.png") as temporary:
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"x")
    assert (tmp_path / "sub" / "a.png").read_bytes() == b"x"


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "best"
    for content in ("one", "two"):
        with atomic_folder(folder) as temporary:
            (temporary / content).touch()
    assert [each.name for each in folder.iterdir()] == ["two"]
    assert [each.name for each in tmp_path.iterdir()] == ["best"]


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    folder = tmp_path / "best"
    with atomic_folder(folder) as temporary:
        (temporary / "one").touch()

    def fail():
        with atomic_folder(folder) as temporary:
            (temporary / "two").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [each.name for each in folder.iterdir()] == ["one"]
    assert [each.name for each in tmp_path.iterdir()] == ["best"]


REPLACE = """
import os, pathlib, signal, sys
from crowdcount.files import atomic_folder

left = int(sys.argv[1])

def dying(call):
    def step(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)
    return step

for name in ("mkdir", "rename", "rmdir", "unlink"):
    setattr(os, name, dying(getattr(os, name)))
with atomic_folder(pathlib.Path("best")) as temporary:
    for name in ("one", "two"):
        (temporary / name).write_text("new")
"""
"""Replaces a folder in a process that is killed before its given system call."""


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


OLD, NEW = (dict.fromkeys(("one", "two"), text) for text in ("old", "new"))


@pytest.fixture
def folder(tmp_path):
    """A folder with two files."""
    with atomic_folder(tmp_path / "best") as temporary:
        for name, text in OLD.items():
            (temporary / name).write_text(text)
    return tmp_path / "best"


def test_a_kill_at_any_step_of_a_replacement_leaves_one_whole_folder(folder):
    found = []
    for steps in range(20):
        shutil.copytree(folder, folder.parent / str(steps) / "best")
        at = folder.parent / str(steps)
        process = subprocess.run([sys.executable, "-c", REPLACE, str(steps)], cwd=at)
        found.append(contents(present_folder(at / "best")))
        assert found[-1] in (OLD, NEW)
        restore_folder(at / "best")
        assert contents(at / "best") == found[-1]
        if process.returncode == 0:
            break
    assert found[0] == OLD
    assert found[-1] == NEW
    assert steps >= 4
    assert found == sorted(found, key=NEW.__eq__)


def test_an_exception_at_any_step_of_a_replacement_leaves_one_whole_folder(folder, monkeypatch):
    def failing(call):
        def step(*arguments, **named):
            nonlocal left
            left -= 1
            if left == -1:
                raise RuntimeError
            return call(*arguments, **named)

        return step

    for steps in range(20):
        left = steps
        with monkeypatch.context() as patch:
            for module, name in ((os, "mkdir"), (os, "rename"), (shutil, "rmtree")):
                patch.setattr(module, name, failing(getattr(module, name)))
            try:
                with atomic_folder(folder) as temporary:
                    for name, text in NEW.items():
                        (temporary / name).write_text(text)
            except RuntimeError:
                pass
            else:
                break
        assert contents(folder) in (OLD, NEW)
    assert steps >= 4
    copy_folder(folder, folder)
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".e")] == []


def test_a_link_to_a_folder_stays_one(folder):
    point_link(folder.parent / "latest", folder)
    with atomic_folder(folder.parent / "latest") as temporary:
        (temporary / "three").write_text("new")
    assert contents(folder) == {"three": "new"}
    assert (folder.parent / "latest").is_symlink()


def test_json_is_utf8_and_refuses_what_json_cannot_say(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"é": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": 1}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": 1}


def test_a_link_moves_to_another_target(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        point_link(tmp_path / "latest", tmp_path / name)
    assert (tmp_path / "latest").resolve() == tmp_path / "two"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_link_replaces_nothing_else(tmp_path, kind):
    (tmp_path / "run").mkdir()
    latest = tmp_path / "latest"
    latest.mkdir() if kind == "folder" else latest.touch()
    with pytest.raises(FileExistsError, match="not a link"):
        point_link(latest, tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "run"]


def test_hashes_agree(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"crowd" * 1000)
    assert sha256_file(path) == sha256_bytes(b"crowd" * 1000)


def test_what_is_written_as_json_is_read_again(tmp_path):
    write_json(tmp_path / "a.json", {"heads": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"heads": [1, 2.5, None]}


@pytest.mark.parametrize("read", [read_json, read_toml])
@pytest.mark.parametrize(
    "content", [b"[", b"\xff\xfe", b"a = " + b"[" * 100_000, b"[" * 100_000, b"a = " + b"9" * 5000]
)
def test_a_file_that_cannot_be_understood_is_one_kind_of_error(read, content, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read(path)


def test_toml_is_read(tmp_path):
    (tmp_path / "a.toml").write_text("[model]\nblock = 8\n")
    assert read_toml(tmp_path / "a.toml") == {"model": {"block": 8}}


def test_what_exists_is_refused_without_force(tmp_path):
    refuse_existing(None, force=False)
    refuse_existing(tmp_path / "new", force=False)
    refuse_existing(tmp_path, force=True)
    with pytest.raises(UsageError, match="already exists"):
        refuse_existing(tmp_path, force=False)


def test_another_format_is_refused(tmp_path):
    check_format(tmp_path, 1, expected=1, next_step="")
    with pytest.raises(BadInputError, match=r"format 2; .* reads format 1"):
        check_format(tmp_path, 2, expected=1, next_step="")
