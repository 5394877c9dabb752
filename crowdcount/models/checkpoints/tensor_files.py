"""Reading tensors from files without running code, and matching them to a model."""

import argparse
import logging
import pickle
import re
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from crowdcount.errors import BadInputError, InputMissingError, UntrustedFileError
from crowdcount.files import describe_stand_in
from crowdcount.models.checkpoints.torchscript import is_torchscript, read_torchscript
from crowdcount.wording import shorten

log = logging.getLogger("crowdcount")

_CORES = ("_core", "core")
"""Name of NumPy's inner package from version 2, and before."""

_LIKELIEST = ("state_dict", "model", "model_state_dict", "weights", "mae")
"""Keys of the weights to take from a file that holds several, such as those of an average, too."""

_PREFIXES = ("module.", "_orig_mod.", "model.")
"""Prefixes that data-parallel training, torch.compile and Lightning put before all names."""

_HARMLESS: list[Any] = [
    # Training states hold NumPy's numbers and arrays, which are bytes and a type, and settings.
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in _CORES),
    *((np.zeros(1).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct") for core in _CORES),
    *(np.ndarray, np.dtype),
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
    *(argparse.Namespace, list, dict, set, int, float, str),
    *(PurePosixPath, PosixPath, PureWindowsPath, WindowsPath),
]
"""Types that a pickle may hold beside tensors and plain values; making them runs no code of it."""
_DAMAGE = (
    *(RuntimeError, EOFError, OSError, ValueError, ArithmeticError, struct.error),
    # Errors of the pickle reader for instructions that make no sense.
    *(TypeError, LookupError, AttributeError, AssertionError),
)
"""Errors of reading a damaged file."""

_TELLING_ENDINGS = {"weight", "bias", "running_mean", "running_var"}


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """The tensors of a file by name."""

    path: Path
    tensors: dict[str, Tensor]
    ordered: bool
    """Whether they are in the order of their model."""

    other: Mapping[str, object] = field(default_factory=dict)
    """Other content by key, such as settings, or the state of an optimiser."""


def read_tensors(path: Path) -> TensorFile:
    """Read a ``.safetensors`` file or a PyTorch file that holds tensors and nothing to execute.

    The program of a TorchScript archive is not read. Tensors may lie in mappings and lists, and
    all names may have a prefix that is not the model's own (``module.``, ``_orig_mod.``,
    ``model.``), which is removed.

    Raises:
        InputMissingError: If the file is missing.
        UntrustedFileError: If reading it would run code from it.
        BadInputError: If it is damaged, is no weights file, or holds no tensors.
    """
    if not path.is_file():
        raise InputMissingError(f"{path}: no such file")
    _refuse_stand_in(path)
    safe = path.suffix.lower() == ".safetensors"
    program = not safe and is_torchscript(path)
    if safe:
        try:
            content: object = load_file(path)
        except (SafetensorError, OSError) as error:
            raise BadInputError(f"{path}: not a readable safetensors file: {error}") from error
    else:
        content = _read_pickle(path, program=program)
    keys = _path_to_tensors(content)
    if keys is None:
        raise BadInputError(f"{path}: holds no tensors by name, so it is no weights file")
    other: dict[str, object] = {}
    for key in keys:
        items = _items(content)
        other |= {str(name): value for name, value in items.items() if name != key}
        content = items[key]
    tensors = {str(name): v for name, v in _items(content).items() if isinstance(v, Tensor)}
    other |= {str(name): v for name, v in _items(content).items() if not isinstance(v, Tensor)}
    while shared := [p for p in _PREFIXES if all(name.startswith(p) for name in tensors)]:
        tensors = {name.removeprefix(shared[0]): tensor for name, tensor in tensors.items()}
    # The safetensors format sorts its tensors by type and name; TorchScript, as it likes.
    ordered = not (safe or program)
    return TensorFile(path=path, tensors=tensors, ordered=ordered, other=other)


def _refuse_stand_in(path: Path) -> None:
    """Refuse what people often have in place of a weights file."""
    with path.open("rb") as stream:
        description = describe_stand_in(stream.read(256))
    if description is not None:
        raise BadInputError(f"{path}: {description}", next_step="download the file itself")
    with suppress(zipfile.BadZipFile, tarfile.TarError, OSError, ValueError, NotImplementedError):
        names = _packed_names(path)
        if names:
            raise BadInputError(
                f"{path}: is an archive, of {shorten(names)}",
                next_step="unpack it, and name the weights file in it",
            )


def _packed_names(path: Path) -> list[str]:
    """List the files in an archive; PyTorch's own are archives, too, and count as none."""
    # The end of a tar file with a zip file in it looks like that of a zip file.
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as tar:
            names = tar.getnames()
        return [] if "storages" in names else names
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        return [] if any(name.endswith("data.pkl") for name in names) else names
    return []


def _items(content: object) -> Mapping[Any, object]:
    """Return what a mapping or a list holds, by its keys or positions."""
    if isinstance(content, Mapping):
        return content
    return dict(enumerate(content)) if isinstance(content, list | tuple) else {}


def _path_to_tensors(content: object, *, depth: int = 3) -> tuple[object, ...] | None:
    """Return the keys that lead to a mapping of names to tensors; None: there is none."""
    items = _items(content)
    named = any(isinstance(k, str) and isinstance(v, Tensor) for k, v in items.items())
    if named and not items.keys() & set(_LIKELIEST):
        return ()
    if depth == 0:
        return None
    # Of several the likeliest, then the first.
    for key in sorted(items, key=lambda key: _LIKELIEST.index(key) if key in _LIKELIEST else 99):
        rest = _path_to_tensors(items[key], depth=depth - 1)
        if rest is not None:
            return (key, *rest)
    return None


def refuse_nan(file: TensorFile) -> None:
    """Refuse weights that are not numbers, as a training that diverged leaves them.

    Raises:
        BadInputError: If a tensor holds NaN. The masks of attention hold infinite numbers.
    """
    for name, tensor in file.tensors.items():
        if tensor.is_floating_point() and tensor.isnan().any():
            raise BadInputError(
                f"{file.path}: {name} holds NaN, which is not a number",
                next_step="take weights from before its training diverged",
            )


def match_tensors(
    file: TensorFile, expected: Mapping[str, Tensor], *, model: str, optional: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """Rename the tensors of a file to those of a model.

    They are matched by name. If names differ, but number, order and shapes agree with the model,
    they are matched in order, which is logged. Counters of batch normalisation are left out: not
    every file has them, and nothing depends on them. ``optional`` are prefixes of names that the
    file need not have, ``model`` names the model in messages.

    Raises:
        BadInputError: If the tensors are not those of the model; names the first difference.
    """
    refuse_nan(file)
    tensors = drop_counters(file.tensors)
    expected = drop_counters(expected)
    needed = [name for name in expected if not name.startswith(optional)]
    missing = [name for name in needed if name not in tensors]
    if missing and file.ordered and not _first_difference(tensors, expected):
        log.info(
            "%s: matched to %s in order: the %d tensors have its number, order and shapes, "
            "but other names (%s for %s)",
            file.path,
            model,
            len(tensors),
            next(name for name in tensors if name not in expected),
            missing[0],
        )
        return dict(zip(expected, tensors.values(), strict=True))
    if len(missing) > len(needed) / 2:
        reason = "the same names: such a file does not keep the order of its tensors"
        raise BadInputError(
            f"{file.path}: its tensors are not those of {model}",
            looked_for=_first_difference(tensors, expected) if file.ordered else reason,
        )
    if missing:
        raise BadInputError(f"{file.path}: {model} needs a tensor {missing[0]}, which is missing")
    required = {name: expected[name] for name in needed}
    exact_tensors({name: tensors[name] for name in needed}, required, source=str(file.path))
    return {
        name: tensors[name]
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape == tensor.shape
    }


def exact_tensors(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: str
) -> dict[str, Tensor]:
    """Return tensors after a check that they are exactly those of a model's state dict.

    Raises:
        BadInputError: If any is missing, unknown or of another shape; lists all of them, and names
            ``source`` as their origin.
    """
    problems = []
    if missing := sorted(expected.keys() - tensors.keys()):
        problems.append(f"lacks {_listed(missing)}")
    if unknown := sorted(tensors.keys() - expected.keys()):
        problems.append(f"has {_listed(unknown)} that the model does not know")
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if problems:
        raise BadInputError(f"{source}: {'; '.join(problems)}")
    return dict(tensors)


def _listed(names: list[str]) -> str:
    return (
        f"the tensor {names[0]}"
        if len(names) == 1
        else f"{len(names)} tensors ({', '.join(names)})"
    )


def _first_difference(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return why two lists of tensors cannot be matched in order; empty if they can."""
    pairs = zip(tensors.items(), expected.items(), strict=False)
    for number, ((name, tensor), (own_name, own)) in enumerate(pairs, start=1):
        ending, own_ending = name.rpartition(".")[2], own_name.rpartition(".")[2]
        # Scale, shift, mean and variance of a norm have one shape and differ by name alone.
        swapped = ending != own_ending and {ending, own_ending} <= _TELLING_ENDINGS
        # A name in both lists must be the same tensor.
        moved = name != own_name and (name in expected or own_name in tensors)
        if tensor.shape != own.shape or swapped or moved:
            return (
                f"tensor {number}: {own_name} {tuple(own.shape)} in the model, "
                f"{name} {tuple(tensor.shape)} in the file"
            )
    if len(tensors) != len(expected):
        return f"{len(expected)} tensors in the model, {len(tensors)} in the file"
    return ""


def drop_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the counters of batch normalisation, which not every file has."""
    return {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}


def _read_pickle(path: Path, *, program: bool) -> object:
    try:
        if program:
            return read_torchscript(path)
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            # It warns of a protocol that it may not know, and raises if it does not.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|class) '?([\w.]+\.\w+)", str(error))
        holds = f"holds {named[1]}" if named else "holds more than tensors"
        raise UntrustedFileError(
            f"{path}: {holds}, and reading that could run code from it",
            next_step="have it written again as .safetensors by someone who trusts it",
        ) from error
    except _DAMAGE as error:
        raise BadInputError(f"{path}: not a readable PyTorch file: {error}") from error
