"""Reading tensors from files without running code, and matching them to a model."""

import logging
import pickle
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from crowdcount.errors import BadInputError, InputMissingError, UntrustedFileError
from crowdcount.models.checkpoints.torchscript import is_torchscript, read_torchscript

log = logging.getLogger("crowdcount")

_WRAPPINGS = ("state_dict", "model", "model_state_dict")
_NUMBERS: list[Any] = [
    # Training states hold NumPy numbers, which are bytes and a type; reading them runs no code.
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
]
"""Types that a pickle may hold beside tensors and plain values."""
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

    other_keys: tuple[str, ...] = ()
    """Keys of other content, such as the state of an optimiser."""


def read_tensors(path: Path) -> TensorFile:
    """Read a ``.safetensors`` file or a PyTorch file that holds tensors and nothing to execute.

    The program of a TorchScript archive is not read. Mappings nested under ``state_dict`` or
    ``model`` are unwrapped, and the prefix ``module.`` of data-parallel training is removed.

    Raises:
        InputMissingError: If the file is missing.
        UntrustedFileError: If reading it would run code from it.
        BadInputError: If it is damaged, or holds no tensors.
    """
    if not path.is_file():
        raise InputMissingError(f"{path}: no such file")
    safe = path.suffix.lower() == ".safetensors"
    program = not safe and is_torchscript(path)
    if safe:
        try:
            content: object = load_file(path)
        except (SafetensorError, OSError) as error:
            raise BadInputError(f"{path}: not a readable safetensors file: {error}") from error
    else:
        content = _read_pickle(path, program=program)
    other_keys: list[str] = []
    for key in _WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            other_keys += [str(other) for other in content if other != key]
            content = content[key]
    tensors: dict[str, Tensor] = {}
    if isinstance(content, Mapping):
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        other_keys += [str(k) for k, v in content.items() if not isinstance(v, Tensor)]
    if not tensors:
        raise BadInputError(f"{path}: holds no tensors by name, so it is no weights file")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    # The safetensors format sorts its tensors by type and name; TorchScript, as it likes.
    ordered = not (safe or program)
    return TensorFile(path=path, tensors=tensors, ordered=ordered, other_keys=tuple(other_keys))


def match_tensors(
    file: TensorFile, expected: Mapping[str, Tensor], *, model: str, optional: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """Rename the tensors of a file to those of a model.

    They are matched by name. If names differ, but number, order and shapes agree with the model,
    they are matched in order, which is logged. Counters of batch normalisation are left out: not
    every file has them, and nothing depends on them.

    Args:
        file: The tensors.
        expected: The state dict of the model.
        model: The model, for messages.
        optional: Prefixes of names that the file need not have.

    Raises:
        BadInputError: If the tensors are not those of the model; names the first difference.
    """
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
    if len(names) == 1:
        return f"the tensor {names[0]}"
    return f"{len(names)} tensors ({', '.join(names)})"


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
        with torch.serialization.safe_globals(_NUMBERS), warnings.catch_warnings():
            # It warns of a protocol that it may not know, and raises if it does not.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UntrustedFileError(
            f"{path}: holds more than tensors, and reading the rest could run code from it",
            next_step="have it written again as .safetensors by someone who trusts it",
        ) from error
    except _DAMAGE as error:
        raise BadInputError(f"{path}: not a readable PyTorch file: {error}") from error
