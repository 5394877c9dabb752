"""The command ``models list``: backbones to build on, and checkpoints to count with."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crowdcount.core.metrics import CountMetrics
from crowdcount.errors import CrowdCountError
from crowdcount.models.backbones import BACKBONES, default_crop
from crowdcount.models.checkpoints.format import describe
from crowdcount.models.checkpoints.names import STARTER, resolve_checkpoint, starter_ships
from crowdcount.runs.folder import run_folders


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of values, with the names of their columns."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def to_json(self) -> list[dict[str, Any]]:
        """Return one mapping for each row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def list_models() -> dict[str, Table]:
    """List ``backbones`` and ``checkpoints``."""
    return {"backbones": list_backbones(), "checkpoints": list_checkpoints()}


def list_backbones() -> Table:
    """List all named backbones, in the order of ``BACKBONES``.

    Parameters are in millions, for five bins; the stride, the window (None: whole images) and the
    crop in pixels, for blocks of 8; gmac in billions of multiply-adds for 448 x 448 and for
    1024 x 768 pixels.
    """
    figures = ("parameters_m", "trained_m", "stride", "gmac_448", "gmac_1024")
    return Table(
        columns=("name", *figures, "window", "crop", "weights", "licence"),
        rows=[
            (
                *(name, known.parameters, known.trained, known.stride),
                *(known.gmac_448, known.gmac_1024),
                *(spec.window, default_crop(name), spec.publisher, spec.licence),
            )
            for name, spec in BACKBONES.items()
            if (known := spec.figures)
        ],
    )


def list_checkpoints() -> Table:
    """List the model that ships and the checkpoint of each run, without damaged ones.

    ``mae`` is that of the validation by which it was selected, ``images`` the number of training
    images, ``model`` the name on its card; None: not known.
    """
    sources: list[tuple[str, str | Path]] = [(run.name, run) for run in run_folders()]
    if starter_ships():
        sources.insert(0, (STARTER, STARTER))
    rows = []
    for name, source in sources:
        with suppress(CrowdCountError):  # damaged, or no checkpoint yet
            rows.append(_row(name, resolve_checkpoint(source).path))
    training, card = ("data", "images", "mae"), ("model", "title")
    return Table(columns=("name", "folder", "backbone", "block", *training, *card), rows=rows)


def _row(name: str, folder: Path) -> tuple[Any, ...]:
    description = describe(folder)
    card, provenance = description.card, description.card.provenance
    metrics = card.metrics.get(provenance.selected_on)
    return (
        *(name, str(folder), description.model.backbone, description.bins.block),
        *(provenance.data, provenance.training_images),
        metrics.mae if isinstance(metrics, CountMetrics) else None,
        *(card.name, card.text and card.text.title),
    )
