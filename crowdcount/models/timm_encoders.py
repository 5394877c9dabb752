"""Encoders of the library timm: feature stages for images of any size, with or without weights."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crowdcount.errors import BadInputError, ConfigError
from crowdcount.models.backbones import BackboneSpec
from crowdcount.models.checkpoints.hub import TIMM_FILES, weights_file
from crowdcount.models.checkpoints.tensor_files import drop_counters, match_tensors, read_tensors
from crowdcount.models.config import ModelConfig


def timm_encoder(spec: BackboneSpec, config: ModelConfig | None, *, offline: bool) -> nn.Module:
    """Build a timm model with ``features_only`` and the weights that the settings name; None: none.

    Raises errors as :func:`crowdcount.models.build.build_model` does.
    """
    encoder = bare_timm_encoder(spec)
    if config is not None and config.weights is not None:
        _load(encoder, _file_weights(spec, Path(config.weights)), model=spec.library_name)
    elif config is not None and config.pretrained != "none":
        _load(encoder, _library_weights(spec, offline=offline), model=spec.library_name)
    return encoder


def bare_timm_encoder(spec: BackboneSpec) -> nn.Module:
    """Build a timm model with ``features_only`` and random weights.

    Raises:
        ConfigError: If timm has no feature stages of it for images of any size.
    """
    import timm

    card: Any = timm.get_pretrained_cfg(spec.library_name)
    # Transformers need an option to take other sizes than that of their weights; some do not.
    ways: list[dict[str, Any]] = [{"dynamic_img_size": True}, {}] if card.fixed_input_size else [{}]
    reason = ""
    for options in ways:
        try:
            encoder: nn.Module = timm.create_model(spec.library_name, features_only=True, **options)
            if card.fixed_input_size:
                # Try another size, so that such a model fails now and not in training.
                stages: Any = encoder.feature_info
                stride = max(stages.reduction())
                with torch.no_grad():
                    encoder.eval()(torch.zeros(1, 3, 2 * stride, 3 * stride))
                encoder.train()
        except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error)
        else:
            return encoder
    raise ConfigError(
        f"model.backbone: timm's {spec.library_name} gives no feature stages for images of any "
        f"size: {' '.join(reason.split())}",
        next_step="choose another backbone, such as timm:tf_efficientnet_lite0",
    )


def check_timm_weights(spec: BackboneSpec) -> None:
    """Raise ConfigError if timm has no weights for a model."""
    if not spec.tag:
        raise ConfigError(
            f"model.pretrained: timm has no weights for {spec.library_name}",
            next_step="pass some with --weights FILE, or start from random ones: --no-pretrained",
        )


def activation_of(encoder: nn.Module) -> nn.Module:
    """Return the kind of activation that an encoder uses first, or ReLU if none is recognised."""
    activations = (
        module
        for module in encoder.modules()
        if type(module).__module__ in ("torch.nn.modules.activation", "timm.layers.activations")
    )
    return copy.deepcopy(next(activations, nn.ReLU(inplace=True)))


def first_stages(encoder: nn.Module, *, number: int) -> tuple[str, ...]:
    """List the modules with weights up to the end of the first ``number`` stages, at least one.

    Modules before a stage belong to it.

    Raises:
        ConfigError: If the encoder has fewer.
    """
    stages: Any = encoder.feature_info
    ends = stages.module_name()
    if number > len(ends):
        raise ConfigError(
            f"model.frozen_stages: the backbone has {len(ends)} stages of features, got {number}"
        )
    end = _plain(ends[number - 1])
    modules = list(encoder.named_modules())
    inside = [f"{_plain(name)}.".startswith(f"{end}.") for name, _ in modules]
    first = modules[: len(modules) - inside[::-1].index(True)]
    return tuple(name for name, module in first if list(module.parameters(recurse=False)))


def _library_weights(spec: BackboneSpec, *, offline: bool) -> dict[str, Tensor]:
    """Return the tensors of the whole pretrained model."""
    import timm

    check_timm_weights(spec)
    name = f"{spec.library_name}.{spec.tag}"
    card: Any = timm.get_pretrained_cfg(name)
    source = card.hf_hub_id or card.url
    path = weights_file(f"timm's {name}", source=source, names=TIMM_FILES, offline=offline)
    overlay = {"state_dict": read_tensors(path).tensors}
    whole: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    return whole.state_dict()


def _file_weights(spec: BackboneSpec, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file under timm's names."""
    import timm

    whole: nn.Module = timm.create_model(spec.library_name)
    card: Any = timm.get_pretrained_cfg(spec.library_name)
    heads = (card.classifier,) if isinstance(card.classifier, str) else card.classifier or ()
    return match_tensors(
        read_tensors(path),
        whole.state_dict(),
        model=f"timm's {spec.library_name}",
        optional=tuple(f"{head}." for head in heads),
    )


def _load(encoder: nn.Module, whole: Mapping[str, Tensor], *, model: str) -> None:
    """Load the tensors of the whole model into an encoder; refuse if any of its own is missing.

    ``features_only`` replaces some dots in names by underscores, or nests the model under
    ``model`` or ``body``.
    """
    by_plain_name = {_plain(name): tensor for name, tensor in whole.items()}
    own = encoder.state_dict()
    tensors = {name: by_plain_name[_plain(name)] for name in own if _plain(name) in by_plain_name}
    for name, tensor in drop_counters(own).items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            raise BadInputError(f"weights of timm's {model}: none for {name} of its feature stages")
    encoder.load_state_dict(tensors, strict=False)


def _plain(name: str) -> str:
    return re.sub(r"^(model|body)\.", "", name).replace("_", ".")
