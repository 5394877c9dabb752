"""Atomic writing of files and folders, guarded reading, hashes of content."""

import hashlib
import importlib.resources
import json
import os
import re
import secrets
import shutil
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from crowdcount.errors import BadInputError, UsageError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it into place when the block succeeds.

    The temporary name ends like ``path``, because image writers choose their format by the ending.
    On an exception the temporary file is removed and ``path`` is as it was before. A device or a
    pipe is written to directly.
    """
    if _is_device(path):
        with naming(path):
            yield path
        return
    temporary = _temporary(path)
    try:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
    finally:
        with suppress(OSError):  # it was moved, or its folder could not be made
            temporary.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; let it replace ``path`` when the block succeeds.

    A folder cannot replace another in one step, so the earlier one is renamed until the new one is
    in place. After an exception it gets its name back; after a kill :func:`present_folder` finds
    it, and :func:`restore_folder` and the next writer rename it back. If ``path`` is a link, the
    folder it points to is replaced.
    """
    path = path.resolve() if path.is_symlink() else path
    temporary = _temporary(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        restore_folder(path)
        temporary.mkdir()
    try:
        with naming(path):
            yield temporary
            if path.exists():
                path.rename(_set_aside(path))
            temporary.rename(path)
    finally:
        restore_folder(path)
        shutil.rmtree(temporary, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Finish or undo a replacement of ``path`` by :func:`atomic_folder` that was cut short."""
    earlier = _set_aside(path)
    if path.exists():
        shutil.rmtree(earlier, ignore_errors=True)
    elif earlier.exists():
        earlier.rename(path)


def present_folder(path: Path) -> Path:
    """Return ``path``, or the earlier folder if a kill cut its replacement short."""
    earlier = _set_aside(path)
    return earlier if earlier.exists() and not path.exists() else path


def copy_folder(source: Path, target: Path) -> None:
    """Replace ``target`` by a copy of the files in ``source``, whole or not at all."""
    with atomic_folder(target) as temporary:
        for file in source.iterdir():
            shutil.copy2(file, temporary)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let a full or read-only disk in the block raise an ``OSError`` that names ``path``.

    By itself the error of a write names no file, that of a temporary file a name that means nothing
    to the user, and PyTorch hides both behind a ``RuntimeError``.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = error.__context__ if type(error) is RuntimeError else error
        if not isinstance(cause, OSError) or cause.errno is None:
            raise
        parts = Path(os.fsdecode(cause.filename or "")).parts
        if not parts or any(is_temporary(Path(part)) for part in parts):
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise


def is_temporary(path: Path) -> bool:
    """Whether ``path`` has a temporary name, which a killed process leaves behind."""
    return re.match(r"\.[0-9a-f]{8}\.", path.name) is not None


def _temporary(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(4)}.{path.name}")


def _set_aside(path: Path) -> Path:
    return path.parent / f".earlier.{path.name}"


def append_text(path: Path, content: str) -> None:
    """Add text to a file in UTF-8."""
    with naming(path), path.open("a", encoding="utf-8") as stream:
        stream.write(content)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` to ``path`` in UTF-8, whole or not at all."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not JSON in UTF-8, or nested too deeply.
    """
    return _parse(path, json.loads)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raises as :func:`read_json` does."""
    return dict(_parse(path, tomllib.loads))


def _parse(path: Path, parser: Callable[[str], Any]) -> Any:
    try:
        return parser(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def describe_stand_in(content: bytes) -> str | None:
    """Describe what is often found in place of a file, by its first bytes; None: something else."""
    start = content[:256].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "holds a web page; the download went wrong"
    if start.startswith((b"{", b"[")):
        return "holds JSON; the download went wrong"
    if start.startswith(b"version https://git-lfs"):
        return "holds a Git LFS pointer in place of the file; git lfs pull fetches it"
    return None


def refuse_existing(path: Path | None, *, force: bool) -> None:
    """Refuse to write to a path where a file or folder exists; None: nothing is written.

    Raises:
        UsageError: If ``path`` exists and ``force`` is not set.
    """
    if path is not None and path.exists() and not force and not _is_device(path):
        raise UsageError(f"{path}: already exists", next_step="name another, or pass --force")


def check_format(path: Path, version: Any, *, expected: int, next_step: str) -> None:
    """Refuse a file of crowdcount's own in a format that this version does not read.

    Raises:
        BadInputError: If ``version`` is not ``expected``.
    """
    if version != expected:
        raise BadInputError(
            f"{path}: format {version}; this version of crowdcount reads format {expected}",
            next_step=next_step,
        )


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def point_link(link: Path, target: Path) -> None:
    """Make ``link`` a relative symbolic link to ``target``; replace an earlier link atomically.

    Raises:
        FileExistsError: If ``link`` is a file or folder and not a link.
        OSError: If the system does not support links.
    """
    if link.exists() and not link.is_symlink():
        raise FileExistsError(f"{link} is not a link")
    with atomic_file(link) as temporary:
        relative = os.path.relpath(target, link.parent)
        temporary.symlink_to(relative, target_is_directory=target.is_dir())


def sha256_bytes(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal, read in pieces.

    Raises:
        OSError: If it does not exist, or is not a regular file (a pipe would wait for a writer).
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: is not a regular file")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def shipped_folder(name: str) -> Path:
    """Return a folder that ships: inside an installed package, beside it in a checkout."""
    package = Path(str(importlib.resources.files("crowdcount")))
    shipped = package / name
    return shipped if shipped.is_dir() else package.parent / name
