"""Settings come from where CLI.md says, in that order, and misspelt ones are refused."""

import dataclasses

import pytest
import tomli_w

from crowdcount.config import (
    RENAMED,
    RunConfig,
    differing_settings,
    load_run_config,
    parse_override,
    preset_names,
)
from crowdcount.core.settings import choices_of, field_types
from crowdcount.data.training.augment import AugmentConfig
from crowdcount.errors import ConfigError, InputMissingError
from crowdcount.losses.count import BayesianConfig, MultiscaleConfig
from crowdcount.losses.dace import DaceConfig
from crowdcount.models.config import ModelConfig
from crowdcount.training.config import TrainConfig
from crowdcount.training.optimiser import OptimConfig
from crowdcount.training.schedule import ScheduleConfig


@pytest.fixture
def sources(tmp_path):
    """Every source of settings, each naming another learning rate."""
    (tmp_path / "crowdcount.toml").write_text("[optim]\nlr = 0.5\n")
    run = tmp_path / "run.toml"
    run.write_text("[optim]\nlr = 0.4\n")
    return {
        "directory": tmp_path,
        "config": run,
        "environment": {"CROWDCOUNT_OPTIM__LR": "0.3", "CROWDCOUNT_DATA_DIR": "x"},
        "overrides": [("optim.lr", "0.2"), ("optim.lr", 0.1)],
    }


def test_the_strongest_source_wins(sources):
    expected = {"overrides": 0.1, "environment": 0.3, "config": 0.4, "directory": 0.5}
    for name, lr in expected.items():
        assert load_run_config(**sources).optim.lr == lr
        del sources[name]
    assert load_run_config(**sources).optim.lr == RunConfig().optim.lr


def test_a_preset_is_weaker_than_the_run_file_and_stronger_than_the_project_file(sources):
    preset_lr = load_run_config(preset="demo").optim.lr
    del sources["overrides"], sources["environment"]
    assert load_run_config(preset="demo", **sources).optim.lr == 0.4
    del sources["config"]
    assert load_run_config(preset="demo", **sources).optim.lr == preset_lr


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads(name):
    assert load_run_config(preset=name) != RunConfig()


def test_settings_survive_the_way_through_toml(tmp_path):
    settings = load_run_config(overrides=[("model.pretrained", "none"), ("train.crop", "96")])
    path = tmp_path / "settings.toml"
    path.write_text(tomli_w.dumps(settings.to_mapping()))
    assert load_run_config(config=path) == settings


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("loss.cuont", "mse", "loss.cuont: no such setting; did you mean 'count'?"),
        ("lsos.count", "mse", "lsos: no such setting; did you mean 'loss'?"),
        ("train.epochs", "many", "train.epochs: expected a whole number of at least 1, got 'many'"),
        ("train.epochs", "0", "train.epochs: expected a whole number of at least 1, got 0"),
        ("train.epochs", "true", "train.epochs: expected a whole number of at least 1, got 'true'"),
        ("loss.count", "mea", "loss.count: expected auto, dm, mae, "),
        ("loss.count.x", "3", "loss.count: expected auto, dm, mae, "),
        ("train", "3", "train: expected a table of settings, got 3"),
        ("model.frozen_head_statistics", "true", "model.frozen_head_statistics: a new head has no"),
    ],
)
def test_a_wrong_setting_is_named_as_the_user_wrote_it(key, value, message):
    with pytest.raises(ConfigError) as caught:
        load_run_config(overrides=[(key, value)])
    assert str(caught.value).startswith(message)


def test_statistics_of_the_head_may_stay_where_a_checkpoint_brings_them():
    given = [("train.init", "starter"), ("model.frozen_head_statistics", "true")]
    assert load_run_config(overrides=given).model.frozen_head_statistics


def test_every_section_forbids_unknown_keys():
    # Pydantic drops unknown keys of a plain dataclass without a word unless told otherwise.
    for section in RunConfig().to_mapping():
        with pytest.raises(ConfigError, match="no such setting"):
            load_run_config(overrides=[(f"{section}.unheard_of", "1")])


@pytest.mark.parametrize("text", ["loss.count", "count=mae", "="])
def test_an_override_needs_section_key_and_value(text):
    with pytest.raises(ConfigError, match=r"expected SECTION\.KEY=VALUE"):
        parse_override(text)


def test_a_run_file_that_is_missing_or_no_toml_is_named(tmp_path):
    with pytest.raises(InputMissingError, match=r"none\.toml"):
        load_run_config(config=tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("[optim\n")
    with pytest.raises(ConfigError, match=r"bad\.toml: not a TOML file"):
        load_run_config(config=bad)


def test_lists_survive_the_way_through_toml(tmp_path):
    settings = load_run_config(
        overrides=[
            ("loss.multiscale.cells", "[1, 6]"),
            ("loss.multiscale.weights", "[1, 0.5]"),
        ]
    )
    assert settings.loss.multiscale.weights == (1.0, 0.5)
    path = tmp_path / "settings.toml"
    path.write_text(tomli_w.dumps(settings.to_mapping()))
    assert load_run_config(config=path) == settings


# ---- text


@pytest.mark.parametrize("source", ["overrides", "environment"])
@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("model.weights", "2024", "2024"),
        ("train.init", "2026-11-24", "2026-11-24"),
        ("train.init", "none", None),
        ("optim.encoder_lr", "none", None),
        ("augment.hue", "none", None),
        ("model.pretrained", "none", "none"),
        ("loss.classification", "none", "none"),
        ("model.normalisation", "none", "none"),
        ("train.tensorboard", "true", True),
    ],
)
def test_the_type_of_a_setting_decides_how_its_text_is_read(source, key, text, value):
    section, name = key.split(".")
    variable = f"CROWDCOUNT_{section}__{name}".upper()
    given = {"overrides": [(key, text)], "environment": {variable: text}}[source]
    start = RunConfig.from_mapping({"optim": {"encoder_lr": 0.1}, "train": {"init": "starter"}})
    config = load_run_config(start=start, **{source: given})
    assert getattr(getattr(config, section), name) == value


# ---- what was given, and what follows from it

GIVEN = (
    AugmentConfig(),
    AugmentConfig(chain="published", scale_max=1.5),
    DaceConfig(),
    DaceConfig(classification="zip", count="bayesian"),
    MultiscaleConfig(cells=(1,), weights=(1.0,)),
    BayesianConfig(),
    ModelConfig(),
    ModelConfig(backbone="clip-vit-b-16", block=16),
    ModelConfig(backbone="clip-vit-b-16", position_grid=16, window_stride=64),
    TrainConfig(init="starter"),
    OptimConfig(),
    ScheduleConfig(),
    RunConfig(),
)

OTHER_TEXT = {"backbone": ("clip-vit-b-32", "vgg19"), "prompt_template": ("Here are {people}.",)}


def other_values(config, name):
    """Values that a setting could be replaced by, whether or not the others allow it."""
    kind = field_types(type(config))[name]
    values = [*choices_of(kind), *OTHER_TEXT.get(name, ("own.toml",)), None, True, False]
    return [*values, 0, 0.25, 0.5, 1, 2, 8, 16, 64, 480, (2,), *GIVEN]


def outcome(make, *arguments, **settings):
    try:
        made = make(*arguments, **settings)
    except ConfigError as error:
        return error.message
    return made.resolved() if hasattr(made, "resolved") else made


@pytest.mark.parametrize("config", GIVEN, ids=lambda config: type(config).__name__)
def test_replacing_a_setting_leaves_nothing_stale(config):
    given = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    for name in given:
        accepted = 0
        for value in other_values(config, name):
            replaced = outcome(dataclasses.replace, config, **{name: value})
            built = outcome(type(config), **given | {name: value})
            assert replaced == built, (name, value)
            accepted += not isinstance(built, str)
        assert accepted, name


def test_what_follows_is_worked_out_anew_when_a_setting_is_replaced():
    # Each was left from the settings before when they rewrote themselves.
    wide = load_run_config(overrides=[("augment.chain", "wide")]).augment
    published = dataclasses.replace(wide, chain="published")
    assert published.resolved().scale_draw == "side"
    loss = dataclasses.replace(DaceConfig(), classification="zip")
    assert loss.resolved().count == "multiscale"
    model = dataclasses.replace(ModelConfig(backbone="clip-vit-b-16"), backbone="clip-rn50")
    assert model.resolved().window is None
    grid = dataclasses.replace(ModelConfig(backbone="clip-vit-b-16"), position_grid=16)
    assert grid.resolved().window == 256


def test_settings_that_differ_are_compared_resolved():
    given, settled = RunConfig(), RunConfig().resolved()
    assert given != settled
    assert differing_settings(given, settled) == {}
    other = RunConfig(loss=DaceConfig(multiscale=MultiscaleConfig(cells=(2,), weights=(1.0,))))
    assert set(differing_settings(given, other)) == {
        "loss.multiscale.cells",
        "loss.multiscale.weights",
    }


# ---- former names


@pytest.mark.parametrize(("former", "name"), RENAMED.items())
def test_a_renamed_setting_is_read_under_its_former_name_from_every_source(former, name, tmp_path):
    values = {
        "loss.multiscale.cells": [1, 2, 6],
        "loss.multiscale.weights": [3.0, 2.0, 1.0],
        "loss.bayesian.sigma": 5.0,
        "loss.bayesian.background": 0.4,
    }
    section, key = former.split(".")
    tree = {section: {key: values[name], "count": "mae"}}
    expected = load_run_config(overrides=[("loss.count", "mae"), (name, values[name])])
    assert expected != RunConfig()
    run = tmp_path / "run.toml"
    run.write_text(tomli_w.dumps(tree))
    variable = f"CROWDCOUNT_{section}__{key}".upper()
    mae = ("loss.count", "mae")
    for config in (
        RunConfig.from_mapping(tree),
        load_run_config(config=run),
        load_run_config(overrides=[mae, (former, str(values[name]))]),
        load_run_config(overrides=[mae], environment={variable: str(values[name])}),
    ):
        assert config == expected
    assert load_run_config(config=run, overrides=[(name, values[name])]) == expected


def test_a_setting_of_a_loss_can_be_set_by_its_environment_variable():
    environment = {"CROWDCOUNT_LOSS__BAYESIAN__SIGMA": "5"}
    assert load_run_config(environment=environment).loss.bayesian.sigma == 5.0
