"""The command ``models list``: backbones to build on, and checkpoints to count with."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from crowdcount.core.metrics import CountMetrics
from crowdcount.errors import CrowdCountError
from crowdcount.models.backbones import BACKBONES, default_crop
from crowdcount.models.checkpoints.format import describe
from crowdcount.models.checkpoints.names import STARTER, resolve_checkpoint, starter_ships
from crowdcount.runs.folder import run_folders


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A row of the table of backbones."""

    name: str
    parameters_m: float
    """Parameters in millions, for five bins."""

    trained_m: float
    """Parameters that are trained by default, in millions."""

    stride: int
    """Stride of the encoder in pixels, for blocks of 8 pixels."""

    gmac_448: int
    gmac_1024: int
    """Billions of multiply-adds for 448 x 448 and for 1024 x 768 pixels."""

    window: int | None
    """Side of the counting windows in pixels; None: whole images."""

    crop: int
    """Side of a training crop, in pixels."""

    weights: str
    licence: str


@dataclass(frozen=True, kw_only=True)
class LocalCheckpoint:
    """A row of the table of checkpoints."""

    name: str
    folder: str
    backbone: str
    block: int
    """Pixels."""

    data: tuple[str, ...]
    """Names of its training data; empty: not known."""

    images: int | None
    """Number of training images."""

    mae: float | None
    """MAE of the validation that it was selected by; None: not known."""

    model: str | None
    """Its name on its card, in records and in reports."""

    title: str | None
    """Its description in one line; None: nobody wrote one."""


def list_backbones() -> list[Backbone]:
    """List all named backbones, in the order of their table."""
    return [
        Backbone(
            name=name,
            parameters_m=figures.parameters,
            trained_m=figures.trained,
            stride=figures.stride,
            gmac_448=figures.gmac_448,
            gmac_1024=figures.gmac_1024,
            window=spec.window,
            crop=default_crop(name),
            weights=spec.publisher,
            licence=spec.licence,
        )
        for name, spec in BACKBONES.items()
        if (figures := spec.figures)
    ]


def list_checkpoints() -> list[LocalCheckpoint]:
    """List the model that ships and the checkpoint of each run, without damaged ones."""
    sources: list[tuple[str, str | Path]] = [(run.name, run) for run in run_folders()]
    if starter_ships():
        sources.insert(0, (STARTER, STARTER))
    rows = []
    for name, source in sources:
        with suppress(CrowdCountError):  # damaged, or no checkpoint yet
            rows.append(_row(name, resolve_checkpoint(source).path))
    return rows


def _row(name: str, folder: Path) -> LocalCheckpoint:
    description = describe(folder)
    card, provenance = description.card, description.card.provenance
    metrics = card.metrics.get(provenance.selected_on)
    return LocalCheckpoint(
        name=name,
        folder=str(folder),
        backbone=description.model.backbone,
        block=description.bins.block,
        data=provenance.data,
        images=provenance.training_images,
        mae=metrics.mae if isinstance(metrics, CountMetrics) else None,
        model=card.name,
        title=None if card.text is None else card.text.title,
    )
