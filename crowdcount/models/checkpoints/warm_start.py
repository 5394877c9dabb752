"""Starting a training from a checkpoint: its weights, and the settings that belong to them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from crowdcount.core.bins import Bins, format_range
from crowdcount.errors import ConfigError
from crowdcount.models.backbones import backbone_spec
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.build import build_model, empty_model
from crowdcount.models.checkpoints.format import describe, load_checkpoint
from crowdcount.models.checkpoints.names import ResolvedCheckpoint
from crowdcount.models.config import ModelConfig

FREE_WITH_INIT = (
    *("tuning", "frozen_stages", "frozen_statistics", "frozen_head_statistics"),
    *("prompt_dropout", "window", "window_stride"),
)
"""Settings of a model that may differ from those of its initial weights: they choose what is
trained and how images are cut, but do not change the meaning of the weights."""

ENCODER_SETTINGS = ("backbone", "normalisation", "pretrained", "weights")
"""Settings of a model that describe its encoder."""


def with_initial_settings(
    given: Mapping[str, Any], *, init: ResolvedCheckpoint, part: str = "all"
) -> dict[str, Any]:
    """Complete settings of the section ``model`` with those of the checkpoint that it starts from.

    ``part`` is ``all``, or ``encoder``: only the encoder comes from the checkpoint.

    Raises:
        InputMissingError: If the checkpoint is missing.
        BadInputError: If it is damaged.
        ConfigError: If a given setting contradicts it, or a new head needs more than its encoder.
    """
    own = describe(init.path)
    # Without its own sources of weights and bins.
    sources = {"pretrained": "none", "weights": None, "bins": None}
    settings = dataclasses.asdict(own.model) | sources
    if part == "encoder":
        if backbone_spec(own.model.backbone).family == "clip":
            raise ConfigError(
                f"train.init_part: a head on {own.model.backbone} compares with sentences, which "
                f"need the text encoder, and {init.name} has none",
                next_step="leave train.init_part out to start from all of it",
            )
        settings = {key: settings[key] for key in ENCODER_SETTINGS}
    for key, value in given.items():
        if key in settings and key not in FREE_WITH_INIT and value != settings[key]:
            if key in ("pretrained", "weights"):
                reason = f"but the weights are those of train.init, {init.name!r}"
            elif key == "bins":
                ranges = ", ".join(format_range(*ends) for ends in own.bins.ranges)
                reason = f"but the bins are those of train.init, {init.name!r}: {ranges}"
            else:
                reason = f"but train.init, {init.name!r}, was made with {settings[key]!r}"
            raise ConfigError(
                f"model.{key}: {value!r}, {reason}",
                next_step=f"leave out model.{key}, or train.init",
            )
    return {**settings, **given}


def initial_model(
    config: ModelConfig, bins: Bins, *, init: ResolvedCheckpoint, part: str = "all"
) -> BlockCounter:
    """Build a model for training with the weights, bins and statistics of a checkpoint.

    With the part ``encoder`` its encoder and statistics are those of the checkpoint, and the rest
    is new: it is for ``bins``, and its random weights come from PyTorch's global generator, which
    the caller seeds. Raises errors as :func:`with_initial_settings` does.
    """
    with_initial_settings(dataclasses.asdict(config), init=init, part=part)
    first = load_checkpoint(init.path).model
    if part == "encoder":
        model = build_model(config, bins, normalisation=first.normalisation, offline=True)
        model.get_submodule("encoder").load_state_dict(first.get_submodule("encoder").state_dict())
        return model
    model = empty_model(config, first.bins, normalisation=first.normalisation)
    weights = first.state_dict()
    if model.state_dict().keys() != weights.keys():
        raise ConfigError(
            f"model.tuning: {config.tuning!r} has other weights than {first.config.tuning!r}, "
            f"with which {init.name} was made",
            next_step=f"leave it at {first.config.tuning}",
        )
    model.load_state_dict(weights)
    return model
