"""Backbones by name: library, weights and their terms, statistics, size and cost."""

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
    """Size and cost of a model on a backbone, for blocks of 8 pixels and five bins."""

    encoder: float
    """Parameters of the encoder, in millions."""

    parameters: float
    """Parameters of the whole model, in millions."""

    trained: float
    """Parameters that are trained by default, in millions."""

    stride: int
    """Stride of the encoder, in pixels."""

    gmac_448: int
    """Billions of multiply-adds for an image of 448 x 448 pixels."""

    gmac_1024: int
    """The same for 1024 x 768 pixels. Windows are counted one by one."""


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """A backbone: its library, its pretrained weights, and how to train on it."""

    family: str
    """``clip``, ``timm`` or one of ``LAYOUTS``: which class of models is built on it."""

    library_name: str
    """Its name in the library."""

    tag: str
    """The library's tag of its usual weights; empty: it has none."""

    normalisation: Normalisation
    """Channel statistics of those weights."""

    window: int | None = None
    """Side of the windows that an image is cut into, in pixels; None: whole images."""

    patch: int | None = None
    """Side of the patches of CLIP's own transformers, in pixels; None: another network."""

    crop: int = 448
    """Default side of a training crop of a backbone without windows, in pixels."""

    decoder: tuple[int, ...] = ()
    """Widths of the residual blocks between a CLIP encoder and the projection to its embedding;
    empty: one as wide as the encoder's features."""

    source: str = ""
    """Repository of the model hub, or URL, with the weights of ``tag``; empty: ask the library.
    With a source, a missing network is reported before the slow import of the library."""

    publisher: str = ""
    """Publisher and name of those weights, for people; empty: not known."""

    licence: str = ""
    """Terms of those weights, if stated; docs/backbones.md has details."""

    figures: Figures | None = None
    """None: not computed."""


def _openai(
    library_name: str,
    repository: str,
    figures: Figures,
    *,
    decoder: tuple[int, ...] = (),
    window: int | None = None,
    patch: int | None = None,
) -> BackboneSpec:
    """Describe a CLIP of OpenAI. Its weights need QuickGELU.

    A transformer is trained on crops of the size of its position embedding, and counts in windows
    of that size.
    """
    return BackboneSpec(
        family="clip",
        library_name=f"{library_name}-quickgelu",
        tag="openai",
        normalisation=NORMALISATIONS["clip"],
        window=window,
        patch=patch,
        decoder=decoder,
        source=f"timm/{repository}.openai",
        publisher="OpenAI",
        licence="MIT, as OpenAI's code",
        figures=figures,
    )


def _torchvision(
    family: str, library_name: str, encoder: float, parameters: float, *stride_and_gmac: int
) -> BackboneSpec:
    """Describe a network of the crowd counting literature on an encoder trained on ImageNet."""
    file = f"{library_name}-{_TORCHVISION_HASHES[library_name]}.pth"
    return BackboneSpec(
        family=family,
        library_name=library_name,
        tag="IMAGENET1K_V1",
        normalisation=NORMALISATIONS["imagenet"],
        source=f"https://download.pytorch.org/models/{file}",
        publisher="torchvision, IMAGENET1K_V1",
        licence="none stated",
        figures=Figures(encoder, parameters, parameters, *stride_and_gmac),
    )


# fmt: off
_TORCHVISION_HASHES = {
    "vgg11": "8a719046", "vgg13": "19584684", "vgg16": "397923af", "vgg19": "dcbb9e9d",
    "vgg11_bn": "6002323d", "vgg13_bn": "abd245e5", "vgg16_bn": "6c64b313", "vgg19_bn": "c79401a0",
    "resnet18": "f37072fd", "resnet34": "b627a593", "resnet50": "0676ba61",
    "resnet101": "63fe2227", "resnet152": "394f9c45",
}

BACKBONES: dict[str, BackboneSpec] = {
    "clip-rn50": _openai(
        "RN50", "resnet50_clip", Figures(23.5, 71.8, 71.8, 16, 170, 666), decoder=(2048,)),
    "clip-rn101": _openai(
        "RN101", "resnet101_clip", Figures(42.5, 103.9, 103.9, 16, 226, 885),
        decoder=(2048, 1024)),
    "clip-rn50x4": _openai(
        "RN50x4", "resnet50x4_clip", Figures(65.6, 89.4, 89.4, 16, 137, 538), decoder=(1280,)),
    "clip-rn50x16": _openai(
        "RN50x16", "resnet50x16_clip", Figures(136.2, 170.4, 170.4, 16, 237, 929),
        decoder=(1536,)),
    "clip-rn50x64": _openai(
        "RN50x64", "resnet50x64_clip", Figures(365.0, 425.9, 425.9, 16, 526, 2062),
        decoder=(2048,)),
    "clip-vit-b-16": _openai(
        "ViT-B-16", "vit_base_patch16_clip_224", Figures(85.8, 97.1, 11.3, 16, 117, 583),
        window=224, patch=16),
    "clip-vit-b-32": _openai(
        "ViT-B-32", "vit_base_patch32_clip_224", Figures(87.5, 98.8, 11.3, 32, 63, 317),
        window=224, patch=32),
    "clip-vit-l-14": _openai(
        "ViT-L-14", "vit_large_patch14_clip_224", Figures(303.2, 323.6, 20.5, 14, 428, 2139),
        window=224, patch=14),
    "clip-vit-l-14-336": _openai(
        "ViT-L-14-336", "vit_large_patch14_clip_336", Figures(303.5, 324.0, 20.5, 14, 949, 2846),
        window=336, patch=14),
    "clip-convnext-base-w": BackboneSpec(
        family="clip",
        library_name="convnext_base_w",
        tag="laion2b_s13b_b82k_augreg",
        normalisation=NORMALISATIONS["clip"],
        source="laion/CLIP-convnext_base_w-laion2B-s13B-b82K-augreg",
        publisher="LAION, laion2b_s13b_b82k_augreg",
        licence="MIT",
        figures=Figures(87.6, 99.8, 99.8, 32, 97, 378),
    ),
    "mobileclip-s1": BackboneSpec(
        family="clip",
        library_name="MobileCLIP-S1",
        tag="datacompdr",
        normalisation=NORMALISATIONS["none"],
        source="apple/MobileCLIP-S1-OpenCLIP",
        publisher="Apple, datacompdr",
        licence="Apple's own",
        figures=Figures(21.0, 33.1, 33.1, 32, 49, 194),
    ),
    "siglip-b-16": BackboneSpec(
        family="clip",
        library_name="ViT-B-16-SigLIP",
        tag="webli",
        normalisation=NORMALISATIONS["half"],
        window=224,
        source="timm/ViT-B-16-SigLIP",
        publisher="Google, webli",
        licence="Apache 2.0",
        figures=Figures(85.8, 97.3, 11.5, 16, 117, 585),
    ),
    "vgg11": _torchvision("vgg", "vgg11", 9.2, 10.7, 16, 35, 135),
    "vgg11_bn": _torchvision("vgg", "vgg11_bn", 9.2, 10.7, 16, 35, 135),
    "vgg13": _torchvision("vgg", "vgg13", 9.4, 10.9, 16, 49, 193),
    "vgg13_bn": _torchvision("vgg", "vgg13_bn", 9.4, 10.9, 16, 49, 193),
    "vgg16": _torchvision("vgg", "vgg16", 14.7, 16.2, 16, 66, 259),
    "vgg16_bn": _torchvision("vgg", "vgg16_bn", 14.7, 16.2, 16, 66, 259),
    "vgg19": _torchvision("vgg", "vgg19", 20.0, 21.5, 16, 83, 324),
    "vgg19_bn": _torchvision("vgg", "vgg19_bn", 20.0, 21.5, 16, 83, 324),
    "csrnet": _torchvision("csrnet", "vgg16", 7.6, 16.3, 8, 83, 325),
    "csrnet_bn": _torchvision("csrnet", "vgg16_bn", 7.6, 16.3, 8, 83, 325),
    "cannet": _torchvision("cannet", "vgg16", 7.6, 18.1, 8, 88, 344),
    "cannet_bn": _torchvision("cannet", "vgg16_bn", 7.6, 18.1, 8, 88, 344),
    "resnet18": _torchvision("resnet", "resnet18", 11.2, 18.3, 16, 34, 135),
    "resnet34": _torchvision("resnet", "resnet34", 21.3, 28.4, 16, 45, 175),
    "resnet50": _torchvision("resnet", "resnet50", 23.5, 30.1, 16, 45, 178),
    "resnet101": _torchvision("resnet", "resnet101", 42.5, 52.0, 16, 69, 272),
    "resnet152": _torchvision("resnet", "resnet152", 58.1, 70.5, 16, 93, 365),
}
# fmt: on
"""The backbones with names of their own. Tests compute the figures."""


def check_backbone(name: str) -> None:
    """Raise ConfigError for a name that is neither in ``BACKBONES`` nor starts like a library's.

    Imports no library.
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
    """Return the description of a backbone, with the weights of ``ModelConfig.pretrained``.

    Raises:
        ConfigError: If there is no such backbone, or no such tag.
    """
    check_backbone(name)
    tag = "" if pretrained in ("auto", "none") else pretrained
    if name.startswith(TIMM_PREFIX):
        return _timm_spec(name.removeprefix(TIMM_PREFIX), tag=tag)
    if name.startswith(OPEN_CLIP_PREFIX):
        return _open_clip_spec(name.removeprefix(OPEN_CLIP_PREFIX), tag=tag)
    spec = BACKBONES[name]
    return replace(spec, tag=tag, source="", publisher="", licence="") if tag else spec


def own_window(name: str, *, grid: int | None = None) -> int | None:
    """Return the side of the windows that a backbone needs, in pixels; None: whole images.

    Imports a library only for ``open-clip:``. ``grid`` is the side of the patch grid of its
    position embedding; None: its own.

    Raises:
        ConfigError: If its grid cannot be chosen.
    """
    spec = backbone_spec(name) if name.startswith(OPEN_CLIP_PREFIX) else BACKBONES.get(name)
    if grid is None:
        return spec.window if spec else None
    if spec is None or spec.patch is None:
        fitting = ", ".join(other for other, known in BACKBONES.items() if known.patch)
        raise ConfigError(
            f"model.position_grid: {name} has no position embedding whose grid can be chosen",
            looked_for=f"one of: {fitting}; or a vision transformer of {OPEN_CLIP_PREFIX}",
            next_step="leave the setting out",
        )
    return grid * spec.patch


def default_crop(name: str, *, grid: int | None = None) -> int:
    """Return the default side of a training crop on a backbone, in pixels.

    A backbone with windows is trained on crops of their size.
    """
    spec = BACKBONES.get(name)
    return own_window(name, grid=grid) or (spec.crop if spec else BackboneSpec.crop)


def check_tag(library: str, model: str, *, tag: str, known: Sequence[str]) -> None:
    """Raise ConfigError for a tag of weights that a library does not have for a model."""
    if tag not in known:
        raise ConfigError(
            f"model.pretrained: {library} has no weights {tag!r} for {model}"
            f"{did_you_mean(tag, known)}",
            looked_for=f"one of: {', '.join(known) or 'none at all'}",
        )


def _no_model(library: str, model: str, known: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"model.backbone: {library} has no model {model!r}{did_you_mean(model, known)}",
        next_step=f"{library}.list_models() in Python lists what it has",
    )


def _timm_spec(name: str, *, tag: str) -> BackboneSpec:
    """Describe a timm model; ``tag`` replaces a tag after a dot in its name."""
    import timm

    model, _, tag_in_name = name.partition(".")
    if not timm.is_model(model):
        raise _no_model("timm", model, timm.list_models())
    tag = tag or tag_in_name
    if tag:
        names = timm.list_models(f"{model}.*", pretrained=True)
        known = [name.partition(".")[2] for name in names]
        check_tag("timm", model, tag=tag, known=known)
    weights: Any = timm.get_pretrained_cfg(f"{model}.{tag}" if tag else model)
    return BackboneSpec(
        family="timm",
        library_name=model,
        tag=weights.tag or "",
        normalisation=Normalisation(mean=tuple(weights.mean), std=tuple(weights.std)),
    )


def _open_clip_spec(name: str, *, tag: str) -> BackboneSpec:
    """Describe a CLIP of open_clip; ``tag`` replaces a tag after a slash in its name."""
    import open_clip
    import timm

    model, _, tag_in_name = name.partition("/")
    if model not in open_clip.list_models():
        raise _no_model("open_clip", model, open_clip.list_models())
    tag = tag or tag_in_name
    if tag:
        known = open_clip.list_pretrained_tags_by_model(model)
        check_tag("open_clip", model, tag=tag, known=known)
    weights = open_clip.get_pretrained_cfg(model, tag) or {}
    vision = open_clip.get_model_config(model)["vision_cfg"]
    if "timm_model_name" in vision:
        trunk: Any = timm.get_pretrained_cfg(vision["timm_model_name"])
        fixed_size = bool(trunk and trunk.fixed_input_size)
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
            mean=tuple(weights.get("mean", usual.mean)), std=tuple(weights.get("std", usual.std))
        ),
        window=window,
        patch=patch,
    )
