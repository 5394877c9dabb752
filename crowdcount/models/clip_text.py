"""The text encoder of CLIP by the library open_clip: features of sentences."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crowdcount.errors import ConfigError
from crowdcount.models.backbones import BackboneSpec
from crowdcount.models.checkpoints.hub import fetch_tokeniser
from crowdcount.models.clip_image import quiet_root_logger

NO_IMAGE = {"image_size": 8, "patch_size": 8, "width": 64, "layers": 1}
"""The smallest image encoder, for a CLIP that only encodes text."""


@torch.no_grad()
def text_features(
    clip: Any, tokens: Int64[Tensor, "sentences context"]
) -> Float[Tensor, "sentences embedding"]:
    """Encode sentences; the features are not normalised."""
    with quiet_root_logger():
        features: Tensor = clip.eval().encode_text(tokens)
    return features


def orthonormalise(
    features: Float[Tensor, "sentences embedding"],
) -> Float[Tensor, "sentences embedding"]:
    """Orthonormalise sentence features, for training from random weights.

    A random text encoder gives nearly the same direction to all sentences. If the cosine of the
    first two is 0.95, no block can be empty with a probability above 0.99 at CLIP's initial
    temperature, and thousands of empty blocks count as a crowd for hundreds of steps. There must be
    at most as many sentences as the embedding has dimensions.
    """
    directions: Tensor = torch.linalg.qr(features.T).Q
    return directions.T.contiguous()


def tokenise(
    spec: BackboneSpec, sentences: Sequence[str], *, offline: bool, untrained: bool = False
) -> Int64[Tensor, "sentences context"]:
    """Convert sentences, all different, to tokens of the text encoder.

    For a text encoder with random weights (``untrained``), bytes replace the tokens of a tokeniser
    that would have to be downloaded.

    Raises:
        ConfigError: If sentences are so long that their differences are cut off, or the tokeniser
            needs a package that is not installed.
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
            try:
                import transformers  # noqa: F401
            except ImportError as error:
                raise ConfigError(
                    f"model.backbone: the sentences of open_clip's {spec.library_name} are read by "
                    "the package transformers, which is not installed",
                    next_step="pip install 'crowdcount-ebc[siglip]', or choose another backbone",
                ) from error
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


def _bytes_as_tokens(
    sentences: Sequence[str], *, context: int
) -> Int64[Tensor, "sentences context"]:
    """Use each byte as a token, and the highest token at the end, where CLIP reads features."""
    tokens = torch.zeros(len(sentences), context, dtype=torch.int64)
    tokens[:, -1] = 256
    for row, sentence in zip(tokens, sentences, strict=True):
        letters = list(sentence.encode())[: context - 1]
        row[: len(letters)] = torch.tensor(letters)
    return tokens
