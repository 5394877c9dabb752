"""The text side of CLIP by the library open_clip: features of sentences."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crowdcount.errors import ConfigError
from crowdcount.models.backbones import BackboneSpec
from crowdcount.models.checkpoints.hub import fetch_tokeniser
from crowdcount.models.clip_image import architecture, quiet_root_logger

_NO_IMAGE = {"image_size": 8, "patch_size": 8, "width": 64, "layers": 1}
"""The smallest image encoder, for a CLIP of which only the text side is wanted."""


def bare_clip_text(spec: BackboneSpec) -> Any:
    """CLIP with the text side alone, with random weights; its image side is of no use.

    Raises:
        ConfigError: If open_clip's model is of another layout.
    """
    import open_clip

    shape = architecture(spec)
    return open_clip.CLIP(
        embed_dim=shape["embed_dim"],
        vision_cfg=_NO_IMAGE,
        text_cfg=shape["text_cfg"],
        quick_gelu=shape.get("quick_gelu", False),
    )


@torch.no_grad()
def text_features(
    clip: Any, tokens: Int64[Tensor, "sentences context"]
) -> Float[Tensor, "sentences embedding"]:
    """What CLIP's text encoder makes of sentences; not normalised."""
    with quiet_root_logger():
        features: Tensor = clip.eval().encode_text(tokens)
    return features


def at_right_angles(
    features: Float[Tensor, "sentences embedding"],
) -> Float[Tensor, "sentences embedding"]:
    """Directions of sentences for training from random weights: of each, what no earlier one says.

    A random text encoder gives nearly the same direction to all sentences. Where the cosine of the
    first two is 0.95, no block is empty with more than 0.99 at CLIP's first temperature, and
    thousands of empty blocks make a crowd, for hundreds of steps.

    Args:
        features: Of no more sentences than the embedding has dimensions.
    """
    directions: Tensor = torch.linalg.qr(features.T).Q
    return directions.T.contiguous()


def tokenised(
    spec: BackboneSpec, sentences: Sequence[str], *, offline: bool, untrained: bool = False
) -> Int64[Tensor, "sentences context"]:
    """Sentences in the numbers that the text encoder reads.

    Args:
        spec: Whose text encoder.
        sentences: No two alike.
        offline: Download no tokeniser.
        untrained: The text encoder has random weights, to which any numbers mean as much: in
            place of a tokeniser that would have to be downloaded, take the bytes.

    Raises:
        ConfigError: If sentences are so long that what tells them apart is cut off, or reading
            them takes a package that is not there.
        InputMissingError: If the tokeniser is missing and cannot be downloaded.
    """
    import open_clip

    text = open_clip.get_model_config(spec.library_name)["text_cfg"]
    name = text.get("hf_tokenizer_name")
    if name is not None and untrained:
        tokens = _bytes_as_tokens(sentences, context=text["context_length"])
    else:
        options = {}
        if name is not None:
            _require_transformers(spec)
            fetch_tokeniser(name, offline=offline)
            options["local_files_only"] = True
        with quiet_root_logger():
            tokens = open_clip.get_tokenizer(spec.library_name, **options)(list(sentences))
    if len(set(map(tuple, tokens.tolist()))) < len(sentences):
        raise ConfigError(
            "model.prompt_template: so long that the text encoder does not see the people",
            looked_for=f"sentences that differ within {tokens.shape[1]} tokens",
        )
    return tokens


def _require_transformers(spec: BackboneSpec) -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"model.backbone: the sentences of open_clip's {spec.library_name} are read by the "
            "package transformers, which is not installed",
            next_step="pip install 'crowdcount-ebc[siglip]', or choose another backbone",
        ) from error


def _bytes_as_tokens(
    sentences: Sequence[str], *, context: int
) -> Int64[Tensor, "sentences context"]:
    """One token a byte, and at the end the highest, where CLIP's text encoders look."""
    tokens = torch.zeros(len(sentences), context, dtype=torch.int64)
    tokens[:, -1] = 256
    for row, sentence in zip(tokens, sentences, strict=True):
        letters = list(sentence.encode())[: context - 1]
        row[: len(letters)] = torch.tensor(letters)
    return tokens
