"""The command ``models list``: what can be built, and what is here to count with."""

from dataclasses import dataclass
from pathlib import Path

from crowdcount.core.metrics import CountMetrics
from crowdcount.errors import CrowdCountError
from crowdcount.models.backbones import BACKBONES, default_crop
from crowdcount.models.checkpoints.format import describe
from crowdcount.models.checkpoints.names import (
    STARTER,
    resolve_checkpoint,
    starter_ships,
)
from crowdcount.runs.folder import RUNS_FOLDER, run_folders


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A row of the table of backbones."""

    name: str
    parameters_m: float
    """Millions, for five bins."""

    trained_m: float
    """Millions that are trained where nothing else is said."""

    stride: int
    """Of the encoder, in pixels, for blocks of 8 pixels."""

    gmac_448: int
    gmac_1024: int
    """Billions of multiply-adds for 448 x 448 and for 1024 x 768 pixels."""

    window: int | None
    """Side of the windows it counts in, in pixels; None: whole images."""

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
    """What it was trained on; empty: not known."""

    images: int | None
    """How many of their images."""

    mae: float | None
    """Of the validation it was selected by; None: not known."""

    model: str | None
    """What its card calls it, and so do records and reports."""

    title: str | None
    """What it is, in a line; None: nobody wrote one."""


def list_backbones() -> list[Backbone]:
    """All backbones with a name of their own, in the order of their table."""
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


def list_checkpoints(runs: Path = RUNS_FOLDER) -> list[LocalCheckpoint]:
    """The model that ships, if any, and what each run has to count with. Damaged ones are left out.

    Args:
        runs: Folder that holds runs.
    """
    found = [(STARTER, resolve_checkpoint(STARTER).path)] if starter_ships() else []
    for run in run_folders(runs):
        try:
            found.append((run.name, resolve_checkpoint(run).path))
        except CrowdCountError:
            continue  # it has not come so far
    rows = []
    for name, folder in found:
        try:
            rows.append(_row(name, folder))
        except CrowdCountError:
            continue
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
