"""The commands ``models show`` and ``models pack``: print a checkpoint's card, write a copy."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from pydantic_core import to_jsonable_python
from safetensors import safe_open

from crowdcount.core.bins import format_range
from crowdcount.core.metrics import CountMetrics
from crowdcount.errors import UsageError
from crowdcount.files import refuse_existing, sha256_file
from crowdcount.models.checkpoints.card import (
    Assumptions,
    Card,
    CardText,
    Measured,
    Provenance,
    Source,
    read_card_text,
)
from crowdcount.models.checkpoints.format import Description, load_checkpoint, save_checkpoint
from crowdcount.models.checkpoints.names import CONFIG_NAME, WEIGHTS_NAME, ResolvedCheckpoint
from crowdcount.models.config import ModelConfig

log = logging.getLogger("crowdcount")

PATHS = (("model", "weights"), ("model", "bins"), ("train", "init"))
"""Settings of a run that can hold paths of the machine that trained it."""

UNKNOWN = "not known"

DATA_TYPES = {"F16": "float16", "F32": "float32"}
"""Names of the types of weights, by their names in safetensors files."""


@dataclass(frozen=True, kw_only=True)
class ShownCheckpoint:
    """A checkpoint with the size, types and hash of its weights."""

    folder: Path
    description: Description
    parameters: int
    stored_as: tuple[str, ...]
    """Types of the numbers in the file of weights."""

    size: int
    """Bytes on disk."""

    weights_sha256: str

    @property
    def name(self) -> str:
        """The name on its card, or else of its folder."""
        return self.description.card.name or self.folder.name

    def to_json(self) -> dict[str, Any]:
        """Return plain values; None: not known, or there is none."""
        description, card = self.description, self.description.card
        model, provenance = description.model, card.provenance
        values = {
            "name": self.name,
            **{key: getattr(card.text, key, None) or None for key in _TEXT_FIELDS},
            "folder": str(self.folder),
            "backbone": model.backbone,
            "head": model.head,
            "parameters": self.parameters,
            "bytes": self.size,
            "stored_as": self.stored_as,
            "weights_sha256": self.weights_sha256,
            **description.bins.to_json(),
            **({"bins": None} if model.head == "regression" else {}),
            "normalisation": description.normalisation,
            "prompts": description.prompts,
            "working_size": card.working_size,
            "window": model.counting_window or None,
            "window_stride": model.window_stride,
            "training": None if provenance == Provenance() else provenance.to_json(),
            "validation": card.metrics or None,
            "software": {"crowdcount": description.crowdcount, "torch": provenance.torch},
        }
        return dict(to_jsonable_python(values))


_TEXT_FIELDS = tuple(field.name for field in dataclasses.fields(CardText) if field.name != "name")


def read_card(folder: Path) -> ShownCheckpoint:
    """Read a checkpoint, and build its model once to count the parameters.

    Raises:
        InputMissingError: If the folder is missing.
        BadInputError: If it is not a checkpoint, or damaged.
    """
    checkpoint = load_checkpoint(folder)
    weights = folder / WEIGHTS_NAME
    with safe_open(weights, "pt") as file:
        types = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return ShownCheckpoint(
        folder=folder,
        description=checkpoint.description,
        parameters=sum(tensor.numel() for tensor in checkpoint.model.parameters()),
        stored_as=tuple(sorted(DATA_TYPES[name] for name in types & DATA_TYPES.keys())),
        size=sum(path.stat().st_size for path in (folder / CONFIG_NAME, weights)),
        weights_sha256=sha256_file(weights),
    )


def pack(
    checkpoint: Path | ResolvedCheckpoint,
    out: Path,
    *,
    text: CardText | Path | None = None,
    half: bool = False,
    force: bool = False,
    dry_run: bool = False,
) -> None:
    """Write a copy of a checkpoint into a folder for others, without paths of this machine.

    Its card gets a new text, which may be a file, or keeps its present one. ``half`` is that of
    ``save_checkpoint``, ``force`` replaces an earlier checkpoint.

    Raises:
        UsageError: If ``out`` exists, or is not a checkpoint and would be replaced.
        InputMissingError: If there is no checkpoint, or no file of the text.
        BadInputError: If it is damaged.
        ConfigError: If the file does not hold the text of a card.
    """
    if isinstance(text, Path):
        text = read_card_text(text)
    check_free(out, force=force)
    if isinstance(checkpoint, ResolvedCheckpoint):
        log.info("model %s", checkpoint)
        checkpoint = checkpoint.path
    if dry_run:
        log.info("to be packed into %s", out)
        return
    loaded = load_checkpoint(checkpoint)
    model, card = loaded.model, loaded.card
    text = text or card.text
    card = dataclasses.replace(
        card,
        name=(text and text.name) or card.name or checkpoint.name,
        text=text,
        settings=None if card.settings is None else _without_folders(card.settings),
    )
    settings = _without_folders({"model": dataclasses.asdict(model.config)})
    model.config = ModelConfig(**settings["model"])
    save_checkpoint(out, model, card=card, half=half)


def check_free(out: Path, *, force: bool) -> None:
    """Raise UsageError if ``out`` exists and is not a checkpoint, or ``force`` is not set."""
    refuse_existing(out, force=force)
    if out.exists() and not (out / CONFIG_NAME).is_file():
        raise UsageError(
            f"{out}: already exists and is not a checkpoint, so --force does not replace it",
            next_step="name another folder",
        )


def card_lines(checkpoint: ShownCheckpoint) -> Iterator[str]:
    """Yield a card for people, line by line."""
    text = checkpoint.description.card.text
    yield checkpoint.name if text is None else f"{checkpoint.name}: {text.title}"
    for label, lines in (_facts(checkpoint) | _text_lines(text)).items():
        for line in "\n".join(lines).splitlines() or [UNKNOWN]:
            yield f"  {label:<15} {line}"
            label = ""


def assumptions_line(assumptions: Assumptions) -> str:
    """List the assumptions of an import in one line."""
    values = dataclasses.asdict(assumptions).items()
    return ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in values if value is not None
    )


def _facts(checkpoint: ShownCheckpoint) -> dict[str, list[str]]:
    """Return the facts in a checkpoint as lines by label; no lines: not known."""
    model, bins = checkpoint.description.model, checkpoint.description.bins
    size, provenance = (
        checkpoint.description.card.working_size,
        checkpoint.description.card.provenance,
    )
    statistics = dataclasses.asdict(checkpoint.description.normalisation).items()
    classes = zip(bins.ranges, bins.values, strict=True)
    facts = {
        "backbone": [f"{model.backbone}, head {model.head}"],
        "parameters": [f"{checkpoint.parameters:,}, stored as {', '.join(checkpoint.stored_as)}"],
        "on disk": [f"{checkpoint.size / 1e6:.1f} MB in {checkpoint.folder}"],
        "SHA-256": [f"{checkpoint.weights_sha256} of its weights"],
        "block": [f"{bins.block} pixels"],
        "bins": ["none: the heads of a block are one number"]
        if model.head == "regression"
        else [", ".join(f"{format_range(*ends)} ({value:g})" for ends, value in classes)],
        "prompts": list(checkpoint.description.prompts or ["none"]),
        "normalisation": [
            "; ".join(f"{name} {', '.join(f'{x:g}' for x in rgb)}" for name, rgb in statistics)
        ],
        "working size": [
            f"short side {size.short_side_min} or more, long side {size.long_side_max} or less"
        ],
        "windows": ["none: images are counted whole"],
        "software": [
            f"crowdcount {checkpoint.description.crowdcount}, torch {provenance.torch or UNKNOWN}"
        ],
        "trained on": _training_lines(provenance),
        "validation": _validation_lines(checkpoint.description.card),
    }
    if init := provenance.init:
        facts["started from"] = [
            f"{init.name}, whose data and terms count, too "
            f"(weights with the SHA-256 {init.weights_sha256})"
        ]
    if imported := provenance.imported:
        facts["imported from"] = [f"{imported.file} (SHA-256 {imported.sha256})"]
    if provenance.assumed:
        facts["assumed"] = [assumptions_line(provenance.assumed)]
    if window := model.counting_window:
        stride = model.window_stride or window
        facts["windows"] = [f"of {window} pixels, one every {stride}"]
    return facts


def _text_lines(text: CardText | None) -> dict[str, list[str]]:
    """Return the text of a card, which a person wrote, as lines by label."""
    text = text or CardText(title="", licence="")
    return {
        "data": list(map(_source_line, text.data)),
        "began with": list(map(_source_line, text.weights)),
        "licence": [text.licence],
        "protocol": [text.protocol or ""],
        "metrics": list(map(_measured_lines, text.metrics)),
        "known failures": list(text.known_failures),
        "speed": [f"{t.image}, {t.machine}: {t.seconds:g} s\n  {t.command}" for t in text.speed],
    }


def _training_lines(provenance: Provenance) -> list[str]:
    if not provenance.data:
        return []
    images = UNKNOWN if provenance.training_images is None else provenance.training_images
    fold = "" if provenance.fold is None else f", fold {provenance.fold} kept for validation"
    return [f"{', '.join(provenance.data)}: {images} images{fold}"]


def _validation_lines(card: Card) -> list[str]:
    """Return the validation on the images by which the run selects its best epoch."""
    split, epoch = card.provenance.selected_on, card.provenance.epoch
    metrics = card.metrics.get(split)
    if not isinstance(metrics, CountMetrics):
        return []
    return [
        f"{split}, {metrics.images} images: MAE {metrics.mae:.2f} RMSE {metrics.rmse:.2f}, "
        f"by crowdcount train after epoch {UNKNOWN if epoch is None else epoch}; "
        "the run selected its best on these images"
    ]


def _source_line(source: Source) -> str:
    images = "" if source.images is None else f", {source.images:,} images"
    url = "" if source.url is None else f" ({source.url})"
    return f"{source.name}{images}{url}: {source.terms}"


def _measured_lines(measured: Measured) -> str:
    nae = "" if measured.nae is None else f" NAE {measured.nae:.3f}"
    note = "" if measured.note is None else f" ({measured.note})"
    return (
        f"{measured.data}, {measured.images:,} images: "
        f"MAE {measured.mae:.2f} RMSE {measured.rmse:.2f}{nae}{note}\n  {measured.command}"
    )


def _without_folders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Replace paths in settings by the names of their files."""
    tree = {section: dict(values) for section, values in settings.items()}
    for section, key in PATHS:
        if isinstance(value := tree.get(section, {}).get(key), str):
            tree[section][key] = PurePath(value).name
    return tree
