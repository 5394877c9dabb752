"""Files and folders: whole or not at all, never replaced unasked; content hashes."""

import hashlib
import json
import os
import re
import secrets
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crowdcount.errors import BadInputError, UsageError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it into place when the block succeeds.

    The temporary name ends like ``path``, because image writers choose their format by the ending.
    On an exception the temporary file is removed and ``path`` is as it was before.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; let it replace ``path`` when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            retired = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
            path.rename(retired)
            temporary.rename(path)
            shutil.rmtree(retired)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_temporary(path: Path) -> bool:
    """Whether ``path`` is named as what the two above leave behind when they are killed."""
    return re.match(r"\.[0-9a-f]{8}\.", path.name) is not None


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
    """What a JSON file says.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON in UTF-8, or nested too deeply.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file says.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no TOML in UTF-8, or nested too deeply.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def refuse_existing(path: Path | None, *, force: bool) -> None:
    """Refuse to write to a path where something exists; None means that nothing is written.

    Raises:
        UsageError: If ``path`` exists and ``force`` is not set.
    """
    if path is not None and path.exists() and not force:
        raise UsageError(f"{path}: already exists", next_step="name another, or pass --force")


def check_format(path: Path, found: Any, *, expected: int, next_step: str) -> None:
    """Refuse a file of ours in a format that this version does not read.

    Raises:
        BadInputError: If ``found`` is not the format ``expected``.
    """
    if found != expected:
        raise BadInputError(
            f"{path}: format {found}; this version of crowdcount reads format {expected}",
            next_step=next_step,
        )


def point_link(link: Path, target: Path) -> None:
    """Make ``link`` a relative symbolic link to ``target``; an earlier link is replaced at once."""
    temporary = link.with_name(f".{secrets.token_hex(4)}.{link.name}")
    temporary.symlink_to(os.path.relpath(target, link.parent), target_is_directory=target.is_dir())
    temporary.replace(link)


def sha256_bytes(content: bytes) -> str:
    """SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal, read in pieces.

    Raises:
        OSError: If it is not there, or no regular file: a pipe would wait for somebody to write.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: is not a regular file")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
