"""ModelConfig: the settings section ``model``."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from crowdcount.core.image import NORMALISATIONS
from crowdcount.core.limits import MAX_BLOCK
from crowdcount.errors import ConfigError
from crowdcount.models import prompts
from crowdcount.models.backbones import check_backbone, own_window
from crowdcount.models.grid_transformer import DEPTHS
from crowdcount.models.neck import NORMS
from crowdcount.models.output import HEADS

TUNINGS = ("auto", "full", "prompts", "frozen")
"""What of an encoder is trained. ``full``: all of it. ``prompts``: it stays as it is, and prompt
tokens between those of the image are trained. ``frozen``: nothing. ``auto``: ``prompts`` for the
transformers of CLIP, ``full`` for everything else."""

DECODERS = ("paper", "slim")
"""``paper``: the published residual blocks behind the last stage. ``slim``: a light pyramid
over earlier features, too, at less than a tenth of the arithmetic; of CLIP's ResNets and vision
transformers."""

PROJECTION_INITS = ("random", "clip")
"""``clip``: the weights with which CLIP brings its own features into the space of its sentences."""

MAX_PROMPT_TOKENS = 1024
"""Five times the tokens of a window; attention costs their square."""

MAX_POSITION_GRID = 256
"""Windows of 4096 pixels in patches of 16; attention costs the fourth power of the side."""

MAX_NECK_WIDTH = 4096
"""As wide as the widest backbones; far beyond it, a layer takes more memory than there is."""

MAX_WINDOW = 8192
"""A window of this side has as many pixels as any image that is counted."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which network counts, how it is shown images, and from which weights its training starts."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    backbone: str = "clip-rn50"
    """A key of ``BACKBONES``; ``timm:NAME`` or ``open-clip:ARCH/PRETRAINED`` for other models of
    these libraries."""

    head: str = "ebc"
    """``ebc``: one classification over all bins. ``zip``: empty or occupied first, then the bin.
    ``regression``: the heads of a block as one number, without bins; not of CLIP's backbones."""

    block: int = 8
    """Side of the blocks that are classified, in pixels."""

    pretrained: str = "auto"
    """``auto``: the usual weights of the backbone. ``none``: random. Else a tag of the library."""

    weights: str | None = None
    """File with weights of the backbone, in place of what ``pretrained`` would download."""

    bins: str | None = None
    """Table of bins: a file, or the name of a published one. None: the one of the data."""

    prompts: str = "words"
    """How CLIP backbones read the number of a bin: ``words`` (There are two people.) or
    ``digits``."""

    prompt_template: str | None = None
    """Sentence around it, with ``{people}`` where ``two people`` belongs. None: There are ..."""

    decoder: str = "paper"
    """What is between a CLIP encoder and the projection: a key of ``DECODERS``."""

    projection_init: str = "random"
    """First weights of the projection of a CLIP backbone: a key of ``PROJECTION_INITS``."""

    tuning: str = "auto"
    """What of the encoder is trained: a key of ``TUNINGS``."""

    frozen_stages: int = 0
    """First stages of an encoder that stay as they are under ``full``, with what is before them: of
    a transformer of CLIP so many blocks, of its ResNets the stem and layers, of timm's models the
    stages that give features. The first are the largest maps, so training takes far less time."""

    frozen_statistics: bool = False
    """Whether the encoder's batch normalisation goes by the statistics of its pretrained weights in
    training, too, while its scales and shifts learn. A few crops have other statistics than the
    many images a model will count: those of their own let it lean on their neighbours, and dense
    crowds are then overcounted."""

    frozen_head_statistics: bool = False
    """The same of all that is not the encoder, for a model that starts from a checkpoint: the neck
    of a timm backbone, the decoder of CLIP's. A new head has no statistics yet."""

    prompt_tokens: int = 32
    """Tokens that ``prompts`` puts between those of the image."""

    prompt_depth: str = "deep"
    """Before which blocks: a key of ``DEPTHS``."""

    prompt_dropout: float = 0.0
    """Share of the numbers in prompt tokens that are zero in a step of training."""

    normalisation: str = "backbone"
    """``backbone``: the statistics its weights were trained with. Else a key of NORMALISATIONS."""

    position_grid: int | None = None
    """Side of the grid of patches that the position embedding of a CLIP transformer is for: that of
    the crops it is trained on, over the patch. None: the backbone's own."""

    neck_width: int = 128
    """Channels in which the stages of a timm backbone are fused."""

    neck_norm: str = "batch"
    """How they, and those of CLIP's ``slim`` decoder, are kept in range: one of ``NORMS``.
    ``layer`` does the same in training and in counting; with ``batch`` few crops a step train
    another neck than the one that counts."""

    window: int | None = None
    """Side of the windows in which images are counted, in pixels. None becomes the one that the
    backbone needs, in whole blocks, if it needs any. 0: images are counted whole on any backbone.
    """

    window_stride: int | None = None
    """Pixels from one window to the next, which overlap where they are fewer than those of its
    side; counts are then averaged. None: the side."""

    def __post_init__(self) -> None:
        check_backbone(self.backbone)
        for setting, value, most in (
            ("block", self.block, MAX_BLOCK),
            ("neck_width", self.neck_width, MAX_NECK_WIDTH),
            ("prompt_tokens", self.prompt_tokens, MAX_PROMPT_TOKENS),
            ("position_grid", self.position_grid, MAX_POSITION_GRID),
        ):
            if value is None:
                continue
            if value < 1:
                raise ConfigError(f"model.{setting}: must be at least 1, got {value}")
            if value > most:
                raise ConfigError(f"model.{setting}: must be at most {most}, got {value}")
        self._settle_windows()
        for setting in ("pretrained", "weights", "bins"):
            if getattr(self, setting) == "":
                raise ConfigError(f"model.{setting}: must not be empty")
        if self.head not in HEADS:
            raise ConfigError(
                f"model.head: unknown head {self.head!r}; choose from: {', '.join(HEADS)}"
            )
        if self.prompts not in prompts.STYLES:
            raise ConfigError(
                f"model.prompts: unknown style {self.prompts!r}; "
                f"choose from: {', '.join(prompts.STYLES)}"
            )
        if self.prompt_template is not None:
            prompts.check_template(self.prompt_template)
        for setting, known in (
            ("tuning", TUNINGS),
            ("prompt_depth", DEPTHS),
            ("decoder", DECODERS),
            ("projection_init", PROJECTION_INITS),
            ("neck_norm", NORMS),
        ):
            if getattr(self, setting) not in known:
                raise ConfigError(
                    f"model.{setting}: unknown {getattr(self, setting)!r}; "
                    f"choose from: {', '.join(known)}"
                )
        if self.frozen_stages < 0:
            raise ConfigError(f"model.frozen_stages: must be >= 0, got {self.frozen_stages}")
        if not 0 <= self.prompt_dropout < 1:
            raise ConfigError(f"model.prompt_dropout: must be in [0, 1), got {self.prompt_dropout}")
        if self.normalisation not in ("backbone", *NORMALISATIONS):
            raise ConfigError(
                f"model.normalisation: unknown statistics {self.normalisation!r}; "
                f"choose from: {', '.join(('backbone', *NORMALISATIONS))}"
            )

    def _settle_windows(self) -> None:
        """Take the window of the backbone where none is named, and refuse what cuts no block."""
        own = own_window(self.backbone, grid=self.position_grid)
        if self.window is None and own:
            object.__setattr__(self, "window", -(-own // self.block) * self.block)
        window, stride = self.window or 0, self.window_stride
        if not 0 <= window <= MAX_WINDOW:
            raise ConfigError(f"model.window: must be 0 to {MAX_WINDOW}, got {window}")
        if stride is not None and not window:
            raise ConfigError(
                f"model.window_stride: {stride}, but images are counted whole",
                next_step="set model.window, too",
            )
        if stride is not None and not 1 <= stride <= window:
            raise ConfigError(
                f"model.window_stride: must be 1 to the side of a window, {window}, got {stride}"
            )
        for setting, pixels in (("window", window), ("window_stride", stride or 0)):
            if pixels % self.block:
                raise ConfigError(
                    f"model.{setting}: must be a multiple of model.block, {self.block}, "
                    f"got {pixels}",
                    next_step=f"the next one is {-(-pixels // self.block) * self.block}",
                )
