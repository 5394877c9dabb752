"""What the name of a backbone means: its library, its statistics, its usual weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from crowdcount.core.image import NORMALISATIONS, Normalisation
from crowdcount.errors import ConfigError
from crowdcount.wording import did_you_mean

TIMM_PREFIX = "timm:"
"""``timm:NAME`` is the model NAME of the library timm."""

OPEN_CLIP_PREFIX = "open-clip:"
"""``open-clip:ARCH/PRETRAINED`` is the model ARCH of the library open_clip, and weights of it."""


@dataclass(frozen=True)
class Figures:
    """A backbone in numbers, for blocks of 8 pixels and five bins."""

    encoder: float
    """Millions of parameters of the encoder."""

    parameters: float
    """Millions, of the model that a checkpoint holds."""

    trained: float
    """Millions that are trained where nothing else is said."""

    stride: int
    """Of the encoder, in pixels."""

    gmac_448: int
    """Billions of multiply-adds for an image of 448 x 448 pixels."""

    gmac_1024: int
    """The same for 1024 x 768 pixels. Windows are counted one by one."""

    weights: str
    """Where the usual weights come from."""

    licence: str
    """Terms of those weights, as far as they are stated; docs/backbones.md says more."""


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

    patch: int | None = None
    """Side of the patches of CLIP's own transformers, in pixels; none: another network."""

    crop: int = 448
    """Side of a training crop of a backbone without windows, in pixels, where nothing else is
    said."""

    decoder: tuple[int, ...] = ()
    """Widths of the residual blocks between a CLIP encoder and the projection to its embedding;
    empty: one as wide as the encoder's features."""

    source: str = ""
    """Where the weights of ``tag`` lie: a repository of the model hub, or a URL; empty: only the
    library knows. Known here, a download that cannot succeed ends before the library is imported,
    which takes seconds."""


def _openai(
    library_name: str,
    repository: str,
    *,
    decoder: tuple[int, ...] = (),
    window: int | None = None,
    patch: int | None = None,
) -> BackboneSpec:
    """CLIP as OpenAI published it: with QuickGELU, without which its weights mean something else.

    A transformer is trained on crops of the size its position embedding was made for, and counts
    in windows of that size.
    """
    return BackboneSpec(
        family="clip",
        library_name=f"{library_name}-quickgelu",
        tag="openai",
        source=f"timm/{repository}.openai",
        normalisation=NORMALISATIONS["clip"],
        window=window,
        patch=patch,
        decoder=decoder,
    )


_TORCHVISION_HASHES = {
    **{"vgg11": "8a719046", "vgg13": "19584684", "vgg16": "397923af", "vgg19": "dcbb9e9d"},
    **{"vgg11_bn": "6002323d", "vgg13_bn": "abd245e5", "vgg16_bn": "6c64b313"},
    **{"vgg19_bn": "c79401a0", "resnet18": "f37072fd", "resnet34": "b627a593"},
    **{"resnet50": "0676ba61", "resnet101": "63fe2227", "resnet152": "394f9c45"},
}


def _torchvision(family: str, library_name: str) -> BackboneSpec:
    """A network of the crowd counting literature, with an encoder that knows ImageNet."""
    return BackboneSpec(
        family=family,
        library_name=library_name,
        tag="IMAGENET1K_V1",
        source="https://download.pytorch.org/models/"
        f"{library_name}-{_TORCHVISION_HASHES[library_name]}.pth",
        normalisation=NORMALISATIONS["imagenet"],
    )


BACKBONES: dict[str, BackboneSpec] = {
    "clip-rn50": _openai("RN50", "resnet50_clip", decoder=(2048,)),
    "clip-rn101": _openai("RN101", "resnet101_clip", decoder=(2048, 1024)),
    "clip-rn50x4": _openai("RN50x4", "resnet50x4_clip", decoder=(1280,)),
    "clip-rn50x16": _openai("RN50x16", "resnet50x16_clip", decoder=(1536,)),
    "clip-rn50x64": _openai("RN50x64", "resnet50x64_clip", decoder=(2048,)),
    "clip-vit-b-16": _openai("ViT-B-16", "vit_base_patch16_clip_224", window=224, patch=16),
    "clip-vit-b-32": _openai("ViT-B-32", "vit_base_patch32_clip_224", window=224, patch=32),
    "clip-vit-l-14": _openai("ViT-L-14", "vit_large_patch14_clip_224", window=224, patch=14),
    "clip-vit-l-14-336": _openai(
        "ViT-L-14-336", "vit_large_patch14_clip_336", window=336, patch=14
    ),
    "clip-convnext-base-w": BackboneSpec(
        family="clip",
        library_name="convnext_base_w",
        tag="laion2b_s13b_b82k_augreg",
        source="laion/CLIP-convnext_base_w-laion2B-s13B-b82K-augreg",
        normalisation=NORMALISATIONS["clip"],
    ),
    "mobileclip-s1": BackboneSpec(
        family="clip",
        library_name="MobileCLIP-S1",
        tag="datacompdr",
        source="apple/MobileCLIP-S1-OpenCLIP",
        normalisation=NORMALISATIONS["none"],
    ),
    "siglip-b-16": BackboneSpec(
        family="clip",
        library_name="ViT-B-16-SigLIP",
        tag="webli",
        source="timm/ViT-B-16-SigLIP",
        normalisation=NORMALISATIONS["half"],
        window=224,
    ),
    **{
        f"vgg{layers}{norm}": _torchvision("vgg", f"vgg{layers}{norm}")
        for layers in (11, 13, 16, 19)
        for norm in ("", "_bn")
    },
    "csrnet": _torchvision("csrnet", "vgg16"),
    "csrnet_bn": _torchvision("csrnet", "vgg16_bn"),
    "cannet": _torchvision("cannet", "vgg16"),
    "cannet_bn": _torchvision("cannet", "vgg16_bn"),
    **{
        f"resnet{layers}": _torchvision("resnet", f"resnet{layers}")
        for layers in (18, 34, 50, 101, 152)
    },
}


_OPENAI = ("OpenAI", "MIT, as OpenAI's code")
_TORCHVISION = ("torchvision, IMAGENET1K_V1", "none stated")

# fmt: off
FIGURES: dict[str, Figures] = {
    "clip-rn50": Figures(23.5, 71.8, 71.8, 16, 170, 666, *_OPENAI),
    "clip-rn101": Figures(42.5, 103.9, 103.9, 16, 226, 885, *_OPENAI),
    "clip-rn50x4": Figures(65.6, 89.4, 89.4, 16, 137, 538, *_OPENAI),
    "clip-rn50x16": Figures(136.2, 170.4, 170.4, 16, 237, 929, *_OPENAI),
    "clip-rn50x64": Figures(365.0, 425.9, 425.9, 16, 526, 2062, *_OPENAI),
    "clip-vit-b-16": Figures(85.8, 97.1, 11.3, 16, 117, 583, *_OPENAI),
    "clip-vit-b-32": Figures(87.5, 98.8, 11.3, 32, 63, 317, *_OPENAI),
    "clip-vit-l-14": Figures(303.2, 323.6, 20.5, 14, 428, 2139, *_OPENAI),
    "clip-vit-l-14-336": Figures(303.5, 324.0, 20.5, 14, 949, 2846, *_OPENAI),
    "clip-convnext-base-w": Figures(
        87.6, 99.8, 99.8, 32, 97, 378, "LAION, laion2b_s13b_b82k_augreg", "MIT"
    ),
    "mobileclip-s1": Figures(21.0, 33.1, 33.1, 32, 49, 194, "Apple, datacompdr", "Apple's own"),
    "siglip-b-16": Figures(85.8, 97.3, 11.5, 16, 117, 585, "Google, webli", "Apache 2.0"),
    "vgg11": Figures(9.2, 10.7, 10.7, 16, 35, 135, *_TORCHVISION),
    "vgg11_bn": Figures(9.2, 10.7, 10.7, 16, 35, 135, *_TORCHVISION),
    "vgg13": Figures(9.4, 10.9, 10.9, 16, 49, 193, *_TORCHVISION),
    "vgg13_bn": Figures(9.4, 10.9, 10.9, 16, 49, 193, *_TORCHVISION),
    "vgg16": Figures(14.7, 16.2, 16.2, 16, 66, 259, *_TORCHVISION),
    "vgg16_bn": Figures(14.7, 16.2, 16.2, 16, 66, 259, *_TORCHVISION),
    "vgg19": Figures(20.0, 21.5, 21.5, 16, 83, 324, *_TORCHVISION),
    "vgg19_bn": Figures(20.0, 21.5, 21.5, 16, 83, 324, *_TORCHVISION),
    "csrnet": Figures(7.6, 16.3, 16.3, 8, 83, 325, *_TORCHVISION),
    "csrnet_bn": Figures(7.6, 16.3, 16.3, 8, 83, 325, *_TORCHVISION),
    "cannet": Figures(7.6, 18.1, 18.1, 8, 88, 344, *_TORCHVISION),
    "cannet_bn": Figures(7.6, 18.1, 18.1, 8, 88, 344, *_TORCHVISION),
    "resnet18": Figures(11.2, 18.3, 18.3, 16, 34, 135, *_TORCHVISION),
    "resnet34": Figures(21.3, 28.4, 28.4, 16, 45, 175, *_TORCHVISION),
    "resnet50": Figures(23.5, 30.1, 30.1, 16, 45, 178, *_TORCHVISION),
    "resnet101": Figures(42.5, 52.0, 52.0, 16, 69, 272, *_TORCHVISION),
    "resnet152": Figures(58.1, 70.5, 70.5, 16, 93, 365, *_TORCHVISION),
}
# fmt: on
"""Of every key of ``BACKBONES``."""


def check_backbone(name: str) -> None:
    """Refuse a name that is neither in ``BACKBONES`` nor of a library. Imports no library.

    Raises:
        ConfigError: If it is, with the known names.
    """
    prefixes = (TIMM_PREFIX, OPEN_CLIP_PREFIX)
    if name in BACKBONES or (name.startswith(prefixes) and name not in prefixes):
        return
    known = [*BACKBONES, f"{TIMM_PREFIX}NAME", f"{OPEN_CLIP_PREFIX}ARCH/PRETRAINED"]
    raise ConfigError(
        f"model.backbone: unknown backbone {name!r}{did_you_mean(name, BACKBONES)}",
        looked_for=f"one of: {', '.join(known)}",
    )


def backbone_spec(name: str, *, pretrained: str = "auto") -> BackboneSpec:
    """The one answer to what the name of a backbone means.

    Args:
        name: A key of ``BACKBONES``, ``timm:NAME`` or ``open-clip:ARCH/PRETRAINED``.
        pretrained: As in ``ModelConfig``: a tag of the library replaces the usual weights.

    Raises:
        ConfigError: If there is no such backbone, or no such tag.
    """
    check_backbone(name)
    tag = "" if pretrained in ("auto", "none") else pretrained
    if name.startswith(TIMM_PREFIX):
        return _timm_spec(name.removeprefix(TIMM_PREFIX), tag=tag)
    if name.startswith(OPEN_CLIP_PREFIX):
        return _open_clip_spec(name.removeprefix(OPEN_CLIP_PREFIX), tag=tag)
    return replace(BACKBONES[name], tag=tag, source="") if tag else BACKBONES[name]


def own_window(name: str, *, grid: int | None = None) -> int | None:
    """Side of the windows that this backbone needs, in pixels.

    Imports no library, but for ``open-clip:``, where only the library knows.

    Args:
        name: The backbone.
        grid: Side of the grid of patches that its position embedding is for; None: its own.

    Raises:
        ConfigError: If it is no transformer of which a grid can be chosen.
    """
    spec = backbone_spec(name) if name.startswith(OPEN_CLIP_PREFIX) else BACKBONES.get(name)
    if grid is None:
        return spec.window if spec else None
    if spec is None or spec.patch is None:
        chosen = ", ".join(each for each, known in BACKBONES.items() if known.patch)
        raise ConfigError(
            f"model.position_grid: {name} has no position embedding whose grid can be chosen",
            looked_for=f"one of: {chosen}; or a vision transformer of {OPEN_CLIP_PREFIX}",
            next_step="leave the setting out",
        )
    return grid * spec.patch


def default_crop(name: str, *, grid: int | None = None) -> int:
    """Side of a training crop on this backbone, in pixels, where nothing else is said.

    That of its windows, where it needs some: training shows it what counting will.
    """
    spec = BACKBONES.get(name)
    return own_window(name, grid=grid) or (spec.crop if spec else BackboneSpec.crop)


def check_tag(library: str, model: str, *, tag: str, known: Sequence[str]) -> None:
    """Refuse a tag of weights that a library does not have for a model.

    Raises:
        ConfigError: If ``tag`` is not among ``known``, with what is.
    """
    if tag not in known:
        raise ConfigError(
            f"model.pretrained: {library} has no weights {tag!r} for {model}"
            f"{did_you_mean(tag, known)}",
            looked_for=f"one of: {', '.join(known) or 'none at all'}",
        )


def _timm_spec(name: str, *, tag: str) -> BackboneSpec:
    """A timm model, with or without a tag of weights behind a dot; ``tag`` is the stronger one."""
    import timm

    model, _, tag_in_name = name.partition(".")
    if not timm.is_model(model):
        raise ConfigError(
            f"model.backbone: timm has no model {model!r}{did_you_mean(model, timm.list_models())}",
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


def _open_clip_spec(name: str, *, tag: str) -> BackboneSpec:
    """A CLIP of open_clip, with or without a tag of weights behind a slash; ``tag`` is stronger."""
    import open_clip
    import timm

    model, _, tag_in_name = name.partition("/")
    known_models = open_clip.list_models()
    if model not in known_models:
        raise ConfigError(
            f"model.backbone: open_clip has no model {model!r}{did_you_mean(model, known_models)}",
            next_step="open_clip.list_models() in Python lists what it has",
        )
    tag = tag or tag_in_name
    if tag:
        known = open_clip.list_pretrained_tags_by_model(model)
        check_tag("open_clip", model, tag=tag, known=known)
    card = open_clip.get_pretrained_cfg(model, tag) or {}
    vision = open_clip.get_model_config(model)["vision_cfg"]
    if "timm_model_name" in vision:
        timm_card: Any = timm.get_pretrained_cfg(vision["timm_model_name"])
        fixed_size = bool(timm_card and timm_card.fixed_input_size)
    else:
        fixed_size = not isinstance(vision["layers"], list)
    window = vision["image_size"] if fixed_size else None
    patch = vision.get("patch_size") if window and "timm_model_name" not in vision else None
    usual = NORMALISATIONS["clip"]
    return BackboneSpec(
        family="clip",
        library_name=model,
        tag=tag,
        normalisation=Normalisation(
            mean=tuple(card.get("mean", usual.mean)), std=tuple(card.get("std", usual.std))
        ),
        window=window,
        patch=patch,
    )
