"""ModelConfig: the settings section ``model``."""

import dataclasses
from typing import Annotated, Literal

from pydantic import Field, model_validator

from crowdcount.core.limits import MAX_BLOCK
from crowdcount.core.settings import NaturalInt, NonEmptyText, settings
from crowdcount.errors import ConfigError
from crowdcount.models.backbones import check_backbone, own_window
from crowdcount.models.prompts import Style, check_template


@settings("model")
class ModelConfig:
    """Settings of the network, of the windows it counts in, and of its initial weights."""

    backbone: str = "clip-rn50"
    """A name from ``crowdcount models list``; ``timm:NAME`` or ``open-clip:ARCH/PRETRAINED`` for
    other models of these libraries."""

    head: Literal["ebc", "zip", "regression"] = "ebc"
    """``ebc``: one classification over all bins. ``zip``: empty or occupied first, then the bin.
    ``regression``: the heads of a block as one number, without bins; not with CLIP's backbones."""

    block: Annotated[int, Field(ge=1, le=MAX_BLOCK)] = 8
    """Side of the blocks that are classified, in pixels."""

    pretrained: NonEmptyText = "auto"
    """``auto``: the usual weights of the backbone. ``none``: random. Else a tag of the library."""

    weights: NonEmptyText | None = None
    """File with weights of the backbone, in place of those of ``pretrained``."""

    bins: NonEmptyText | None = None
    """Table of bins: a file, or the name of a published one. None: the one of the data."""

    prompts: Style = "words"
    """How sentences for CLIP name the number of a bin: ``words`` (There are two people.) or
    ``digits``."""

    prompt_template: str | None = None
    """Sentence around the number, with ``{people}`` for ``two people``. None: There are ..."""

    decoder: Literal["paper", "slim", "zip"] = "paper"
    """Layers between encoder and head. ``paper``: for CLIP the published residual blocks, for
    timm's models a light pyramid over all stages. ``slim``: such a pyramid for CLIP's models, at
    less than a tenth of the arithmetic. ``zip``: EBC-ZIP's, on the last stage of timm's models."""

    projection_init: Literal["random", "clip"] = "random"
    """First weights of the projection of a CLIP backbone. ``clip``: those with which CLIP projects
    its own features into the space of its sentences."""

    tuning: Literal["auto", "full", "prompts", "frozen"] = "auto"
    """Trained part of the encoder. ``full``: all of it. ``prompts``: prompt tokens between those of
    the image, while the encoder stays. ``frozen``: nothing. ``auto``: ``prompts`` for the
    transformers of CLIP, ``full`` for everything else."""

    frozen_stages: NaturalInt = 0
    """First stages of an encoder that are not trained under ``full``, together with the layers
    before them: blocks of a CLIP transformer, the stem and layers of its ResNets, feature stages of
    timm's models. The first have the largest maps, so training takes far less time."""

    frozen_statistics: bool = False
    """Whether the encoder's batch normalisation uses the statistics of its pretrained weights in
    training, too, while its scales and shifts learn. With the statistics of a few crops, a model
    learns to rely on the other crops of its batch, and then overcounts dense crowds."""

    frozen_head_statistics: bool = False
    """The same for everything behind the encoder (the neck of a timm backbone, the decoder of
    CLIP's), in a model that starts from a checkpoint. A new head has no statistics yet."""

    # Up to five times the tokens of a window: attention costs their square.
    prompt_tokens: Annotated[int, Field(ge=1, le=1024)] = 32
    """Tokens that ``tuning = "prompts"`` adds to those of the image."""

    prompt_depth: Literal["deep", "shallow"] = "deep"
    """Blocks before which prompt tokens are put: ``deep``, all; ``shallow``, the first."""

    prompt_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the numbers in prompt tokens that are set to zero in a training step."""

    normalisation: Literal["backbone", "clip", "imagenet", "half", "none"] = "backbone"
    """Channel statistics of the input. ``backbone``: those its weights were trained with."""

    # Up to windows of 4096 pixels in patches of 16: attention costs the fourth power of the side.
    position_grid: Annotated[int, Field(ge=1, le=256)] | None = None
    """Side of the grid of patches of a CLIP transformer's position embedding: that of the crops it
    is trained on, over the patch. None: the backbone's own."""

    # Up to the width of the widest backbones: a far wider layer does not fit into memory.
    neck_width: Annotated[int, Field(ge=1, le=4096)] = 128
    """Channels in which the stages of a timm backbone are fused."""

    neck_norm: Literal["batch", "layer"] = "batch"
    """Normalisation in the neck and in CLIP's ``slim`` decoder. ``layer`` computes the same in
    training and in counting; with ``batch`` and few crops a step, training sees another neck than
    counting does."""

    # Up to as many pixels as any image that is counted.
    window: Annotated[int, Field(ge=0, le=8192)] | None = None
    """Side of the windows in which images are counted, in pixels. None: the one that the backbone
    needs, in whole blocks, if it needs any. 0: images are counted whole on any backbone."""

    window_stride: Annotated[int, Field(ge=1)] | None = None
    """Pixels from one window to the next. Windows overlap where this is below their side; counts
    are then averaged. None: the side."""

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        check_backbone(self.backbone)
        if self.prompt_template is not None:
            check_template(self.prompt_template)
        window, stride = self.counting_window or 0, self.window_stride
        if stride is not None and not window:
            raise ConfigError(
                f"model.window_stride: {stride}, but images are counted whole",
                next_step="set model.window, too",
            )
        if stride is not None and stride > window:
            raise ConfigError(
                f"model.window_stride: expected at most {window}, the side of a window, "
                f"got {stride}"
            )
        for setting, pixels in (("window", window), ("window_stride", stride or 0)):
            if pixels % self.block:
                raise ConfigError(
                    f"model.{setting}: expected a multiple of model.block, {self.block}, "
                    f"got {pixels}",
                    next_step=f"the next one is {-(-pixels // self.block) * self.block}",
                )
        return self

    @property
    def counting_window(self) -> int | None:
        """The window, or that of the backbone where none is given; None or 0: whole images."""
        own = own_window(self.backbone, grid=self.position_grid)
        if self.window is None and own:
            return -(-own // self.block) * self.block
        return self.window

    def resolved(self) -> "ModelConfig":
        """Return the same settings with the window of the backbone where none is given."""
        return dataclasses.replace(self, window=self.counting_window)
