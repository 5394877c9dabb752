"""A checkpoint: one folder that says everything about a model, and needs nothing else."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from crowdcount.core.bins import Bins
from crowdcount.core.image import Normalisation
from crowdcount.core.typed import typed
from crowdcount.errors import BadInputError, ConfigError, InputMissingError
from crowdcount.files import atomic_folder, check_format, read_json, write_json
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.build import empty_model
from crowdcount.models.checkpoints.names import CONFIG_NAME, WEIGHTS_NAME
from crowdcount.models.checkpoints.tensor_files import exact_tensors, read_tensors
from crowdcount.models.config import ModelConfig
from crowdcount.version import __version__

FORMAT = 1
"""Version of the folder's layout; raised when an older reader would misread a newer folder."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint folder holds."""

    model: BlockCounter
    """In evaluation mode, on the CPU."""

    card: dict[str, Any]
    """What the writer said about it: working size, provenance, metrics, settings of the run."""

    software: str
    """Version of crowdcount that wrote it."""


def save_checkpoint(
    folder: Path, model: BlockCounter, *, card: Mapping[str, Any], half: bool = False
) -> None:
    """Write a model into a folder, which is replaced whole or not at all.

    Args:
        folder: Where to; an earlier checkpoint there is replaced.
        model: The model, with its bins, statistics and, for CLIP, text features.
        card: Plain values (JSON) that :func:`load_checkpoint` gives back as they are.
        half: Store the matrices and kernels among the weights in float16, which is half as large.
    """
    config = {
        "format": FORMAT,
        "crowdcount": __version__,
        "model": asdict(model.config),
        "bins": model.bins.to_json(),
        "prompts": None if model.prompts is None else list(model.prompts),
        "normalisation": asdict(model.normalisation),
        "card": dict(card),
    }
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    if half:
        weights = dict(model.named_parameters())
        tensors |= {name: _halved(tensors[name]) for name in tensors.keys() & weights.keys()}
    with atomic_folder(folder) as temporary:
        write_json(temporary / CONFIG_NAME, config)
        save_file(tensors, temporary / WEIGHTS_NAME)
        # The library lets the owner alone read its file, whatever the umask says.
        shutil.copymode(temporary / CONFIG_NAME, temporary / WEIGHTS_NAME)


def _halved(weights: Tensor) -> Tensor:
    """Matrices and kernels in float16, where it can hold them.

    Biases and scales stay as they are: they are few, and every block's count hangs on each. So do
    buffers, which never come here: statistics of batch normalisation, the counts of the bins.
    """
    if weights.ndim < 2 or weights.dtype != torch.float32:
        return weights
    half = weights.half()
    return half if bool(half.isfinite().all()) else weights


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote, without network and without the library's weights.

    The model is float32, however its weights are stored. The state of PyTorch's random generator
    stays as it was.

    Raises:
        InputMissingError: If the folder or one of its files is not there.
        BadInputError: If it is of a newer format, damaged, or its parts do not fit together.
    """
    told = describe(folder)
    try:
        with torch.random.fork_rng(devices=[]):
            model = empty_model(told.model, told.bins, normalisation=told.normalisation)
    except (ConfigError, ValueError) as error:
        raise _no_model(folder, error) from error
    path = folder / WEIGHTS_NAME
    found = read_tensors(path).tensors
    model.load_state_dict(exact_tensors(found, model.state_dict(), source=str(path)))
    return Checkpoint(model=model.eval(), card=told.card, software=told.software)


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a checkpoint says of its model, without the weights."""

    model: ModelConfig
    bins: Bins
    normalisation: Normalisation
    card: dict[str, Any]
    software: str


def describe(folder: Path) -> Description:
    """Read what a checkpoint says of its model, without building it.

    Raises:
        InputMissingError: If the folder or one of its files is not there.
        BadInputError: If it is of a newer format, or damaged.
    """
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise InputMissingError(
                f"{folder}: not a checkpoint", looked_for=f"{CONFIG_NAME} and {WEIGHTS_NAME} in it"
            )
    config = _read_config(folder / CONFIG_NAME)
    try:
        told = typed(_Written, config)
        return Description(
            model=told.model,
            bins=Bins.from_json(told.bins),
            normalisation=told.normalisation,
            card=told.card,
            software=told.crowdcount,
        )
    except (ConfigError, ValueError) as error:
        raise _no_model(folder, error) from error


@dataclass(frozen=True, kw_only=True)
class _Written:
    """The part of ``config.json`` that is read again."""

    model: ModelConfig
    bins: dict[str, Any]
    normalisation: Normalisation
    card: dict[str, Any]
    crowdcount: str


def _no_model(folder: Path, error: Exception) -> BadInputError:
    return BadInputError(f"{folder / CONFIG_NAME}: does not describe a model: {error}")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
        version = config["format"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"{path}: not the description of a checkpoint: {error}") from error
    newer = "use the version of crowdcount that wrote it, or a newer one"
    check_format(path, version, expected=FORMAT, next_step=newer)
    return dict(config)
