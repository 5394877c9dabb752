"""All settings of a run as one tree, and where their values come from.

Strongest first: flags and ``--set`` (the later wins), environment variables such as
``CROWDCOUNT_LOSS__COUNT=mae``, the run file, the preset, ``crowdcount.toml`` in the working
directory, the defaults of the fields.
"""

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from crowdcount.data.training.augment import AugmentConfig
from crowdcount.errors import ConfigError, InputMissingError
from crowdcount.files import read_toml
from crowdcount.losses.dace import DaceConfig
from crowdcount.models.checkpoints.names import resolve_checkpoint
from crowdcount.models.checkpoints.warm_start import with_initial_settings
from crowdcount.models.config import ModelConfig
from crowdcount.training.config import TrainConfig
from crowdcount.training.optimiser import OptimConfig
from crowdcount.training.schedule import ScheduleConfig
from crowdcount.wording import did_you_mean

ENVIRONMENT_PREFIX = "CROWDCOUNT_"
PROJECT_FILE = "crowdcount.toml"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what a training run computes, but for its data."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network and where its first weights come from."""

    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How training crops are varied."""

    loss: DaceConfig = field(default_factory=DaceConfig)
    """What is minimised."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """How the learning rate goes."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """How long and how large."""

    def __post_init__(self) -> None:
        if self.model.head == "regression" and self.loss.classification != "none":
            raise ConfigError(
                f"loss.classification: {self.loss.classification} needs bins, and model.head = "
                "regression tells none apart",
                next_step="--set loss.classification=none, or another model.head",
            )
        new_head = self.train.init is None or self.train.init_part == "encoder"
        if self.model.frozen_head_statistics and new_head:
            raise ConfigError(
                "model.frozen_head_statistics: a new head has no statistics to stay at",
                next_step="start from a whole checkpoint, with --init, or leave the setting out",
            )

    def to_mapping(self) -> dict[str, dict[str, Any]]:
        """The settings as a tree of plain values, without those that are unset."""
        return {
            section: {key: value for key, value in settings.items() if value is not None}
            for section, settings in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "RunConfig":
        """Settings from a tree of plain values; what is left out keeps its default.

        Raises:
            ConfigError: If a key is unknown or a value cannot be what the setting wants.
        """
        try:
            return TypeAdapter(cls).validate_python(mapping)
        except ValidationError as error:
            raise ConfigError(_explain(error)) from error


def differing_settings(one: RunConfig, other: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Both values of each setting in which two trees differ, by its name."""
    ones, others = dataclasses.asdict(one), dataclasses.asdict(other)
    return {
        f"{section}.{key}": (value, others[section][key])
        for section, settings in ones.items()
        for key, value in settings.items()
        if value != others[section][key]
    }


def preset_names() -> tuple[str, ...]:
    """The run files that ship with the package."""
    folder = files("crowdcount") / "presets"
    names = (entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in names))


def load_run_config(
    *,
    config: Path | None = None,
    preset: str | None = None,
    overrides: Iterable[tuple[str, Any]] = (),
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    start: RunConfig | None = None,
    offline: bool = False,
) -> RunConfig:
    """Merge all sources of settings into one tree.

    Settings of the section ``model`` that no source gives are those of the checkpoint that
    ``train.init`` names.

    Args:
        config: A run file.
        preset: The name of a run file that ships with the package.
        overrides: ``("loss.count", value)`` pairs, a later one beating an earlier one. Text values
            are read as TOML where they can be.
        environment: Environment variables; those that are no setting are passed over.
        directory: Where ``crowdcount.toml`` is looked for; None: nowhere.
        start: What holds where no source says otherwise; None: the defaults of the fields.
        offline: Do not download the checkpoint that training starts from.

    Raises:
        ConfigError: If a file is no TOML, a key is unknown or a value is wrong, or contradicts the
            checkpoint that training starts from.
        InputMissingError: If a file, preset or checkpoint is not there.
        BadInputError: If the checkpoint is damaged.
    """
    tree: dict[str, Any] = {} if start is None else start.to_mapping()
    if directory is not None and (directory / PROJECT_FILE).is_file():
        _merge(tree, _read_toml(directory / PROJECT_FILE))
    if preset is not None:
        _merge(tree, _read_preset(preset))
    if config is not None:
        _merge(tree, _read_toml(config))
    for key, value in [*_from_environment(environment or {}), *overrides]:
        _merge(tree, _nested(key, value))
    # Not of a run that was begun: its settings are complete, and its first weights may be gone.
    if start is None:
        _take_initial_settings(tree, offline=offline)
    return RunConfig.from_mapping(tree)


def _take_initial_settings(tree: dict[str, Any], *, offline: bool) -> None:
    """Complete the section ``model`` from the checkpoint that training starts from.

    One of the model hub is called by its commit from here on, so that it stays the same.
    """
    train, model = tree.get("train"), tree.get("model", {})
    if not (isinstance(train, Mapping) and isinstance(model, Mapping)):
        return
    init = train.get("init")
    if isinstance(init, str) and init:
        checkpoint = resolve_checkpoint(init, offline=offline)
        _merge(tree, _nested("train.init", checkpoint.name))
        part = train.get("init_part", TrainConfig.init_part)
        tree["model"] = with_initial_settings(model, init=checkpoint, part=part)


def parse_override(text: str) -> tuple[str, Any]:
    """``("loss.count", "mae")`` from ``loss.count=mae``.

    Raises:
        ConfigError: If there is no ``=``, or the key has no section.
    """
    key, equals, value = text.partition("=")
    if not equals or "." not in key:
        raise ConfigError(f"--set {text}: expected SECTION.KEY=VALUE, such as loss.count=mae")
    return key.strip(), value.strip()


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Settings among the environment variables: those of our prefix that name section and key."""
    return [
        (name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".", 1), value)
        for name, value in sorted(environment.items())
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name
    ]


def _nested(key: str, value: Any) -> dict[str, Any]:
    """``{"loss": {"count": value}}`` from ``loss.count``."""
    tree: Any = _literal(value) if isinstance(value, str) else value
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return dict(tree)


def _literal(text: str) -> Any:
    """What TOML makes of a value; text that is no TOML stands for itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _merge(tree: dict[str, Any], stronger: Mapping[str, Any]) -> None:
    """Put ``stronger`` over ``tree``, table by table."""
    for key, value in stronger.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = dict(value) if isinstance(value, Mapping) else value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except OSError as error:
        raise InputMissingError(f"{path}: cannot read the run file: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def _read_preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise ConfigError(
            f"--preset {name}: no such preset{did_you_mean(name, preset_names())}",
            looked_for=", ".join(preset_names()),
        )
    text = (files("crowdcount") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _explain(error: ValidationError) -> str:
    """The first problem pydantic found, as one line for the person who wrote the setting."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    name = ".".join(path)
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _keys(path[:-1])
        hint = did_you_mean(path[-1], known) or f"; choose from: {', '.join(known)}"
        return f"{name}: no such setting{hint}"
    expected = problem["msg"].removeprefix("Input should be ")
    return f"{name}: expected {expected}, got {problem['input']!r}"


def _keys(path: list[str]) -> list[str]:
    """The settings of the section at ``path``."""
    level: Any = RunConfig()
    for part in path:
        level = getattr(level, part)
    return [each.name for each in dataclasses.fields(level)]
