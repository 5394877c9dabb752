"""Settings come from where CLI.md says, in that order, and misspelt ones are refused."""

import pytest
import tomli_w

from crowdcount.config import (
    RunConfig,
    load_run_config,
    parse_override,
    preset_names,
)
from crowdcount.errors import ConfigError, InputMissingError


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
        ("train.epochs", "many", "train.epochs: expected a valid integer"),
        ("train.epochs", "0", "train.epochs must be at least 1, got 0"),
        ("loss.count", "mea", "loss.count: unknown count loss 'mea'; choose from: "),
        ("train", "3", "train: expected"),
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


def test_lists_and_the_count_term_that_auto_means_survive_the_way_through_toml(tmp_path):
    settings = load_run_config(
        overrides=[
            ("loss.classification", "zip"),
            ("loss.multiscale_cells", "[1, 6]"),
            ("loss.multiscale_weights", "[1, 0.5]"),
        ]
    )
    assert (settings.loss.count, settings.loss.multiscale_weights) == ("multiscale", (1.0, 0.5))
    path = tmp_path / "settings.toml"
    path.write_text(tomli_w.dumps(settings.to_mapping()))
    assert load_run_config(config=path) == settings
