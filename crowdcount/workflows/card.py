"""The card of a checkpoint: everything that is known of a model; and checkpoints to hand on."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from safetensors import safe_open

from crowdcount.core.bins import Bins, format_range
from crowdcount.core.image import Normalisation, WorkingSize
from crowdcount.core.typed import typed
from crowdcount.errors import BadInputError, UsageError
from crowdcount.files import refuse_existing, sha256_file
from crowdcount.models.checkpoints.format import load_checkpoint, save_checkpoint
from crowdcount.models.checkpoints.names import CONFIG_NAME, WEIGHTS_NAME
from crowdcount.models.config import ModelConfig
from crowdcount.workflows.card_text import CardText, Measured, Source, Timed

TEXT = "text"
"""Key of the card in ``config.json`` under which its text stands."""

PATHS = (("model", "weights"), ("model", "bins"), ("train", "init"))
"""Settings of a run that can name files of the machine that trained it."""

UNKNOWN = "not known"

DATA_TYPES = {"F16": "float16", "F32": "float32"}
"""What safetensors files call the types in which weights are stored."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known of a model."""

    name: str
    folder: Path
    model: ModelConfig
    parameters: int
    stored_as: tuple[str, ...]
    """Types of the numbers in the file of weights."""

    size: int
    """Bytes on disk."""

    weights_sha256: str
    bins: Bins
    normalisation: Normalisation
    prompts: tuple[str, ...] | None
    working_size: WorkingSize
    software: str
    """Version of crowdcount that wrote it."""

    provenance: Mapping[str, Any]
    """What its run says of data and selection."""

    metrics: Mapping[str, Any]
    """The validation of its run, by split."""

    text: CardText | None
    """None: nobody wrote one."""

    def to_json(self) -> dict[str, Any]:
        """The card as plain values; None: not known, or there is none."""
        text = None if self.text is None else dataclasses.asdict(self.text)
        said = {key: None if text is None else text[key] or None for key in _SAID}
        return {
            "name": self.name,
            **said,
            "folder": str(self.folder),
            "backbone": self.model.backbone,
            "head": self.model.head,
            "parameters": self.parameters,
            "bytes": self.size,
            "stored_as": list(self.stored_as),
            "weights_sha256": self.weights_sha256,
            **self.bins.to_json(),
            **({"bins": None} if self.model.head == "regression" else {}),
            "normalisation": dataclasses.asdict(self.normalisation),
            "prompts": None if self.prompts is None else list(self.prompts),
            "working_size": dataclasses.asdict(self.working_size),
            "window": self.model.window or None,
            "window_stride": self.model.window_stride,
            "training": dict(self.provenance) or None,
            "validation": dict(self.metrics) or None,
            "software": {"crowdcount": self.software, "torch": self.provenance.get("torch")},
        }


_SAID = tuple(each.name for each in dataclasses.fields(CardText) if each.name != "name")


def read_card(folder: Path) -> Card:
    """Everything that a checkpoint says of its model, and what its files show.

    Raises:
        InputMissingError: If the folder is not there.
        BadInputError: If it is no checkpoint of ours, or damaged.
    """
    loaded = load_checkpoint(folder)
    told = told_by(folder, loaded.card)
    weights = folder / WEIGHTS_NAME
    with safe_open(weights, "pt") as file:
        types = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return Card(
        name=told.name or folder.name,
        folder=folder,
        model=loaded.model.config,
        parameters=sum(each.numel() for each in loaded.model.parameters()),
        stored_as=tuple(sorted(DATA_TYPES[each] for each in types & DATA_TYPES.keys())),
        size=sum(path.stat().st_size for path in (folder / CONFIG_NAME, weights)),
        weights_sha256=sha256_file(weights),
        bins=loaded.model.bins,
        normalisation=loaded.model.normalisation,
        prompts=loaded.model.prompts,
        working_size=told.working_size,
        software=loaded.software,
        provenance=told.provenance,
        metrics=told.metrics,
        text=told.text,
    )


def pack(
    checkpoint: Path,
    out: Path,
    *,
    text: CardText | None = None,
    half: bool = False,
    force: bool = False,
) -> None:
    """Write a checkpoint to hand on: a model and its card, without paths of this machine.

    Args:
        checkpoint: The folder of a checkpoint.
        out: The folder to write.
        text: What a person says of the model; None: what the checkpoint says already.
        half: Store weights in float16, as ``save_checkpoint`` does.
        force: Replace an earlier checkpoint at ``out``.

    Raises:
        UsageError: If ``out`` already exists, or is no checkpoint and would be replaced.
        InputMissingError: If there is no checkpoint.
        BadInputError: If it is damaged.
    """
    check_free(out, force=force)
    loaded = load_checkpoint(checkpoint)
    told = told_by(checkpoint, loaded.card)
    text = text or told.text
    named = None if text is None else text.name
    card = {
        **loaded.card,
        "name": named or told.name or checkpoint.name,
        TEXT: None if text is None else dataclasses.asdict(text),
    }
    if "settings" in card:
        card["settings"] = _without_folders(card["settings"])
    model = loaded.model
    files = _without_folders({"model": dataclasses.asdict(model.config)})
    model.config = ModelConfig(**files["model"])
    save_checkpoint(out, model, card=card, half=half)


def check_free(out: Path, *, force: bool) -> None:
    """See that nothing is lost by writing a checkpoint to ``out``.

    Raises:
        UsageError: If something is there, and it is no checkpoint or ``force`` is not set.
    """
    refuse_existing(out, force=force)
    if out.exists() and not (out / CONFIG_NAME).is_file():
        raise UsageError(
            f"{out}: already exists and is not a checkpoint, so --force does not replace it",
            next_step="name another folder",
        )


def card_lines(card: Card) -> Iterator[str]:
    """A card for people, line by line."""
    yield card.name if card.text is None else f"{card.name}: {card.text.title}"
    for label, lines in (_facts(card) | _words(card.text)).items():
        for line in "\n".join(lines).splitlines() or [UNKNOWN]:
            yield f"  {label:<15} {line}"
            label = ""


def said_of_assumed(assumed: Mapping[str, Any]) -> str:
    """What an import took to be so, since no published file says it, in a line."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in assumed.items())


def _facts(card: Card) -> dict[str, list[str]]:
    """What the checkpoint itself shows, as lines under labels; no line: not known."""
    size, model, said = card.working_size, card.model, card.provenance
    bins = zip(card.bins.ranges, card.bins.values, strict=True)
    statistics = dataclasses.asdict(card.normalisation).items()
    facts = {
        "backbone": [f"{model.backbone}, head {model.head}"],
        "parameters": [f"{card.parameters:,}, stored as {', '.join(card.stored_as)}"],
        "on disk": [f"{card.size / 1e6:.1f} MB in {card.folder}"],
        "SHA-256": [f"{card.weights_sha256} of its weights"],
        "block": [f"{card.bins.block} pixels"],
        "bins": ["none: the heads of a block are one number"]
        if model.head == "regression"
        else [", ".join(f"{format_range(*ends)} ({value:g})" for ends, value in bins)],
        "prompts": list(card.prompts or ["none"]),
        "normalisation": [
            "; ".join(f"{name} {', '.join(f'{x:g}' for x in each)}" for name, each in statistics)
        ],
        "working size": [
            f"short side {size.short_side_min} or more, long side {size.long_side_max} or less"
        ],
        "windows": ["none: images are counted whole"],
        "software": [f"crowdcount {card.software}, torch {said.get('torch', UNKNOWN)}"],
        "trained on": _run(said),
        "validation": _validation(card),
    }
    if isinstance(init := said.get("init"), Mapping):
        facts["started from"] = [
            f"{init.get('name', UNKNOWN)}, whose data and terms count, too "
            f"(weights with the SHA-256 {init.get('weights_sha256', UNKNOWN)})"
        ]
    if isinstance(imported := said.get("imported"), Mapping):
        facts["imported from"] = [
            f"{imported.get('file', UNKNOWN)} (SHA-256 {imported.get('sha256', UNKNOWN)})"
        ]
    if isinstance(assumed := said.get("assumed"), Mapping):
        facts["assumed"] = [said_of_assumed(assumed)]
    if model.window:
        stride = model.window_stride or model.window
        facts["windows"] = [f"of {model.window} pixels, one every {stride}"]
    return facts


def _words(text: CardText | None) -> dict[str, list[str]]:
    """What a person says, in the same way."""
    if text is None:
        return {label: [] for label in _LABELS}
    words = (
        [_source(each) for each in text.data],
        [_source(each) for each in text.weights],
        [text.licence],
        [text.protocol] if text.protocol else [],
        [line for each in text.metrics for line in _measured(each)],
        list(text.known_failures),
        [line for each in text.speed for line in _timed(each)],
    )
    return dict(zip(_LABELS, words, strict=True))


_LABELS = ("data", "began with", "licence", "protocol", "metrics", "known failures", "speed")


def _run(said: Mapping[str, Any]) -> list[str]:
    """What a run says of its data."""
    if "data" not in said:
        return []
    counts = f"{said.get('training_images', UNKNOWN)} images"
    fold = f", fold {said['fold']} kept for validation" if "fold" in said else ""
    return [f"{', '.join(map(str, said['data']))}: {counts}{fold}"]


def _source(source: Source) -> str:
    images = "" if source.images is None else f", {source.images:,} images"
    url = "" if source.url is None else f" ({source.url})"
    return f"{source.name}{images}{url}: {source.terms}"


def _measured(found: Measured) -> list[str]:
    nae = "" if found.nae is None else f" NAE {found.nae:.3f}"
    note = "" if found.note is None else f" ({found.note})"
    return [
        f"{found.data}, {found.images:,} images: "
        f"MAE {found.mae:.2f} RMSE {found.rmse:.2f}{nae}{note}",
        f"  {found.command}",
    ]


def _timed(found: Timed) -> list[str]:
    return [f"{found.image}, {found.machine}: {found.seconds:g} s", f"  {found.command}"]


def _validation(card: Card) -> list[str]:
    """What the run measured itself, on the images that it selects its best on."""
    split = card.provenance.get("selected_on", "val")
    found = card.metrics.get(split)
    if not isinstance(found, Mapping) or not {"mae", "rmse", "images"} <= found.keys():
        return []
    epoch = card.provenance.get("epoch", UNKNOWN)
    return [
        f"{split}, {found['images']} images: MAE {found['mae']:.2f} RMSE {found['rmse']:.2f}, "
        f"by crowdcount train after epoch {epoch}; the run selected its best on these images"
    ]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the card in a checkpoint must say, and may."""

    working_size: WorkingSize
    name: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    text: CardText | None = None


def told_by(folder: Path, card: Mapping[str, Any]) -> Told:
    """The card in the checkpoint ``folder``, each value of the type that it must have.

    Raises:
        BadInputError: If one is not.
    """
    try:
        return typed(Told, dict(card))
    except ValueError as error:
        raise BadInputError(f"{folder / CONFIG_NAME}: card.{error}") from error


def _without_folders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which files are called by their names alone."""
    tree = {section: dict(values) for section, values in settings.items()}
    for section, key in PATHS:
        if isinstance(value := tree.get(section, {}).get(key), str):
            tree[section][key] = PurePath(value).name
    return tree
