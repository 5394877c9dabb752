"""What the name of a backbone means: its library, its statistics, its usual weights."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crowdcount.core.image import NORMALISATIONS, Normalisation
from crowdcount.errors import ConfigError

TIMM_PREFIX = "timm:"
"""``timm:NAME`` is the model NAME of the library timm."""


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """One backbone, and what has to be known to train on it."""

    family: str
    """Key into ``crowdcount.models.build.FAMILIES``: who builds a model on it."""

    library_name: str
    """What the library calls it."""

    tag: str
    """The library's tag of the weights to start from; empty where it has none."""

    normalisation: Normalisation
    """Channel statistics of those weights."""

    window: int | None = None
    """Side of the windows that an image is cut into, in pixels; none: whole images."""

    crop: int = 448
    """Side of a training crop of a backbone without windows, in pixels, where nothing else is
    said."""

    decoder: tuple[int, ...] = ()
    """Widths of the residual blocks between a CLIP encoder and the projection to its embedding."""


BACKBONES: dict[str, BackboneSpec] = {
    "clip-rn50": BackboneSpec(
        family="clip",
        library_name="RN50-quickgelu",
        tag="openai",
        normalisation=NORMALISATIONS["clip"],
        decoder=(2048,),
    ),
}


def check_backbone(name: str) -> None:
    """Refuse a name that is neither in ``BACKBONES`` nor ``timm:NAME``. Imports no library.

    Raises:
        ConfigError: If it is, with the known names.
    """
    if name in BACKBONES or name.removeprefix(TIMM_PREFIX) not in ("", name):
        return
    known = [*BACKBONES, f"{TIMM_PREFIX}NAME"]
    raise ConfigError(
        f"model.backbone: unknown backbone {name!r}{_suggestion(name, BACKBONES)}",
        looked_for=f"one of: {', '.join(known)}",
    )


def backbone_spec(name: str, *, pretrained: str = "auto") -> BackboneSpec:
    """The one answer to what the name of a backbone means.

    Args:
        name: A key of ``BACKBONES`` or ``timm:NAME``.
        pretrained: As in ``ModelConfig``: a tag of the library replaces the usual weights.

    Raises:
        ConfigError: If there is no such backbone, or no such tag.
    """
    check_backbone(name)
    tag = "" if pretrained in ("auto", "none") else pretrained
    if name not in BACKBONES:
        return _timm_spec(name.removeprefix(TIMM_PREFIX), tag=tag)
    return replace(BACKBONES[name], tag=tag) if tag else BACKBONES[name]


def own_window(name: str) -> int | None:
    """Side of the windows that this backbone needs, in pixels. Imports no library."""
    spec = BACKBONES.get(name)
    return spec.window if spec else None


def default_crop(name: str) -> int:
    """Side of a training crop on this backbone, in pixels, where nothing else is said.

    That of its windows, where it needs some: training shows it what counting will.
    """
    spec = BACKBONES.get(name)
    return own_window(name) or (spec.crop if spec else BackboneSpec.crop)


def check_tag(library: str, model: str, *, tag: str, known: Sequence[str]) -> None:
    """Refuse a tag of weights that a library does not have for a model.

    Raises:
        ConfigError: If ``tag`` is not among ``known``, with what is.
    """
    if tag not in known:
        raise ConfigError(
            f"model.pretrained: {library} has no weights {tag!r} for {model}"
            f"{_suggestion(tag, known)}",
            looked_for=f"one of: {', '.join(known) or 'none at all'}",
        )


def _timm_spec(name: str, *, tag: str) -> BackboneSpec:
    """A timm model, with or without a tag of weights behind a dot; ``tag`` is the stronger one."""
    import timm

    model, _, tag_in_name = name.partition(".")
    if not timm.is_model(model):
        raise ConfigError(
            f"model.backbone: timm has no model {model!r}{_suggestion(model, timm.list_models())}",
            next_step="timm.list_models('*part-of-a-name*') in Python lists what it has",
        )
    tag = tag or tag_in_name
    if tag:
        names = timm.list_models(f"{model}.*", pretrained=True)
        known = [each.partition(".")[2] for each in names]
        check_tag("timm", model, tag=tag, known=known)
    card: Any = timm.get_pretrained_cfg(f"{model}.{tag}" if tag else model)
    return BackboneSpec(
        family="timm",
        library_name=model,
        tag=card.tag or "",
        normalisation=Normalisation(mean=tuple(card.mean), std=tuple(card.std)),
    )


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
