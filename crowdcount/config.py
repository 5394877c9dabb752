"""RunConfig: all settings of a run as one tree, and where their values come from.

Strongest first: flags and ``--set`` (the later wins), environment variables such as
``CROWDCOUNT_LOSS__COUNT=mae``, the run file, the preset, ``crowdcount.toml`` in the working
directory, the defaults of the fields. Nothing here reads a checkpoint or the network.
"""

import dataclasses
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from importlib.resources import files
from pathlib import Path
from typing import Any, TypedDict, Unpack

from pydantic import model_validator

from crowdcount.core.settings import field_type, from_text, parse, settings
from crowdcount.data.training.augment import AugmentConfig
from crowdcount.errors import ConfigError, InputMissingError
from crowdcount.files import read_toml
from crowdcount.losses.dace import DaceConfig
from crowdcount.models.config import ModelConfig
from crowdcount.training.config import TrainConfig
from crowdcount.training.optimiser import OptimConfig
from crowdcount.training.schedule import ScheduleConfig
from crowdcount.wording import did_you_mean

ENVIRONMENT_PREFIX = "CROWDCOUNT_"
PROJECT_FILE = "crowdcount.toml"

RENAMED = {
    "loss.multiscale_cells": "loss.multiscale.cells",
    "loss.multiscale_weights": "loss.multiscale.weights",
    "loss.bayesian_sigma": "loss.bayesian.sigma",
    "loss.bayesian_background": "loss.bayesian.background",
}
"""Former names of settings, which run files, runs and checkpoints may still use."""


@settings("")
class RunConfig:
    """All settings that decide what a training run computes, apart from its data."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network and its first weights."""

    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random changes to training images."""

    loss: DaceConfig = field(default_factory=DaceConfig)
    """The loss that training minimises."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate over the run."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """Length, batches, validation and checkpoints of the run."""

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        if self.model.head == "regression" and self.loss.classification != "none":
            raise ConfigError(
                f"loss.classification: {self.loss.classification} needs bins, and model.head = "
                "regression has none",
                next_step="--set loss.classification=none, or another model.head",
            )
        new_head = self.train.init is None or self.train.init_part == "encoder"
        if self.model.frozen_head_statistics and new_head:
            raise ConfigError(
                "model.frozen_head_statistics: a new head has no statistics to keep",
                next_step="start from a whole checkpoint, with --init, or leave the setting out",
            )
        return self

    def resolved(self) -> "RunConfig":
        """Return the settings with every automatic value replaced by the one it stands for."""
        return dataclasses.replace(
            self,
            model=self.model.resolved(),
            augment=self.augment.resolved(),
            loss=self.loss.resolved(),
        )

    def flat(self) -> dict[str, Any]:
        """Return every resolved setting by its full name, such as ``loss.count``."""
        return dict(_flat(dataclasses.asdict(self.resolved())))

    def to_mapping(self) -> dict[str, Any]:
        """Return the settings as a tree of plain values, without those that are unset."""
        return _without_unset(dataclasses.asdict(self))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "RunConfig":
        """Build settings from a tree of plain values; settings left out keep their defaults.

        Raises:
            ConfigError: If a key is unknown or a value is wrong.
        """
        try:
            return parse(cls, _with_current_names(mapping))
        except ValueError as error:
            raise ConfigError(str(error)) from error


def differing_settings(one: RunConfig, other: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Map each setting that differs once both are resolved to its two values."""
    others = other.flat()
    return {key: (value, others[key]) for key, value in one.flat().items() if value != others[key]}


def preset_names() -> tuple[str, ...]:
    """Return the names of the run files that ship with the package."""
    folder = files("crowdcount") / "presets"
    names = (entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in names))


class Sources(TypedDict, total=False):
    """Where settings come from, for :func:`given_settings` and :func:`load_run_config`."""

    config: Path | None
    """A run file."""

    preset: str | None
    """The name of a run file that ships with the package."""

    overrides: Iterable[tuple[str, Any]]
    """``("loss.count", value)`` pairs; a later one beats an earlier one. Text is converted to the
    type of the setting; ``none`` unsets an optional one."""

    environment: Mapping[str, str]
    """Environment variables; others than settings are ignored."""

    directory: Path | None
    """Folder whose ``crowdcount.toml`` is read."""

    start: RunConfig | None
    """Settings to start from, in place of the defaults of the fields."""


def load_run_config(**sources: Unpack[Sources]) -> RunConfig:
    """Build the settings that the sources give; see :class:`Sources` and :func:`given_settings`.

    Raises:
        ConfigError: If a key is unknown or a value is wrong.
    """
    return RunConfig.from_mapping(given_settings(**sources))


def given_settings(**sources: Unpack[Sources]) -> dict[str, Any]:
    """Merge the settings that the sources give into one tree, still unchecked.

    Raises:
        ConfigError: If a file is not TOML or no preset has this name.
        InputMissingError: If the run file does not exist.
    """
    start = sources.get("start")
    tree: dict[str, Any] = {} if start is None else start.to_mapping()
    directory = sources.get("directory")
    if directory is not None and (directory / PROJECT_FILE).is_file():
        _merge(tree, _read_toml(directory / PROJECT_FILE))
    if preset := sources.get("preset"):
        _merge(tree, _read_preset(preset))
    if config := sources.get("config"):
        _merge(tree, _read_toml(config))
    variables = _from_environment(sources.get("environment", {}))
    for key, value in [*variables, *sources.get("overrides", ())]:
        name = RENAMED.get(key, key)
        if isinstance(value, str):
            value = from_text(field_type(RunConfig, name.split(".")), value)
        _merge(tree, _nested(name, value))
    return tree


def parse_override(text: str) -> tuple[str, str]:
    """Split ``loss.count=mae`` into ``("loss.count", "mae")``.

    Raises:
        ConfigError: If there is no ``=``, or the key has no section.
    """
    key, equals, value = text.partition("=")
    if not equals or "." not in key:
        raise ConfigError(f"--set {text}: expected SECTION.KEY=VALUE, such as loss.count=mae")
    return key.strip(), value.strip()


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the settings among the environment variables."""
    return [
        (name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."), value)
        for name, value in sorted(environment.items())
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name
    ]


def _nested(key: str, value: Any) -> dict[str, Any]:
    """Return ``{"loss": {"count": value}}`` for ``loss.count``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``("loss.count", value)`` for each value of a tree."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _without_unset(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_unset(value) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if value is not None
    }


def _with_current_names(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a tree in which renamed settings have their present names."""
    current = _merge({}, tree)
    for former, name in RENAMED.items():
        section, key = former.split(".")
        if isinstance(current.get(section), dict) and key in current[section]:
            current = _merge(_nested(name, current[section].pop(key)), current)
    return current


def _merge(tree: dict[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    """Put ``stronger`` over ``tree``, table by table, and return ``tree``."""
    for key, value in stronger.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = _merge({}, value) if isinstance(value, Mapping) else value
    return tree


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return _with_current_names(read_toml(path))
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
