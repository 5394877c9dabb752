"""Every run file that ships says what it aims at, and does what it says."""

import json
from importlib.resources import files

import pytest
import torch

from crowdcount.config import load_run_config, preset_names
from crowdcount.core.bins import bin_ranges
from crowdcount.core.image import NORMALISATIONS
from crowdcount.models.build import empty_model
from crowdcount.workflows.bins import training_bins
from crowdcount.workflows.bins_tables import published_table
from crowdcount.workflows.counter import load

# From SPEC section 5.
PUBLISHED = {
    "clip-rn50-sha": ("MAE 55.0",),
    "clip-rn50-shb": ("MAE 6.3",),
    "clip-rn50-qnrf": (),
    "clip-rn50-nwpu": ("MAE 38.6, RMSE 90.3", "MAE 75.8, RMSE 367.3"),
    "vgg19-sha": ("MAE 62.3, RMSE 98.9",),
    "vgg19-nwpu": ("MAE 39.6, RMSE 95.8", "MAE 83.7, RMSE 376.0"),
    "zip-n-sha": ("MAE 58.86, RMSE 94.63",),
    "zip-n-shb": ("MAE 7.74, RMSE 12.14",),
}
"""What each preset of a published model aims at."""

AIMS = PUBLISHED | {
    "clip-vit-b-16-qnrf": (),
    "clip-vit-b-16-nwpu": ("MAE 61.2, RMSE 278.3",),
}
"""The same, and of those with settings of their own."""

FINE = ((0, 0), (1, 1), (2, 2), (3, 3), (4, None))
BINS = {
    **{name: FINE for name in PUBLISHED if not name.startswith("zip")},
    "zip-n-sha": (*((k, k) for k in range(11)), (11, 12), (13, 14), (15, None)),
    "zip-n-shb": (*((k, k) for k in range(9)), (9, None)),
}
LAST_AVERAGE = {"sha": 4.29992, "shb": 4.41009, "qnrf": 4.21937, "nwpu": 4.21931}


def header(name):
    """The comment at the beginning of a preset."""
    text = (files("crowdcount") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    lines = text.split("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in lines)
    return " ".join(line.removeprefix("#").strip() for line in lines)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_says_what_it_aims_at_and_what_is_ours(name):
    said = header(name)
    assert ("no published number" in said) == (not AIMS.get(name))
    for number in AIMS.get(name, ()):
        assert number in said
    assert "ours" in said or name == "demo"


def test_the_published_presets_are_all_there():
    assert set(PUBLISHED) <= set(preset_names())


@pytest.mark.parametrize("name", PUBLISHED)
def test_bins_are_the_published_ones(name):
    config = load_run_config(preset=name)
    table = published_table(config.model.bins)
    assert bin_ranges(table.starts) == BINS[name]
    assert table.block == config.model.block == (16 if name.startswith("zip") else 8)
    if not name.startswith("zip"):
        assert table.values == (0.0, 1.0, 2.0, 3.0, LAST_AVERAGE[name.rpartition("-")[2]])


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_was_published_is_what_is_set(name):
    config = load_run_config(preset=name).resolved()
    zip_ = name.startswith("zip")
    assert (config.optim.name, config.optim.lr, config.train.crop) == ("adam", 1e-4, 448)
    assert config.train.epochs == (1300 if zip_ else 2600)
    assert config.schedule.name == "restarts"
    assert config.schedule.warmup_epochs == (25 if zip_ else 50)
    assert config.loss.count == ("multiscale" if zip_ else "dm")
    assert config.loss.classification == ("zip" if zip_ else "ce")
    # A crop has 1 to 2 (ZIP: 0.75 to 2) times the side that it is resized to.
    scales = 1 / config.augment.scale_max, 1 / config.augment.scale_min
    assert scales == pytest.approx((0.75 if zip_ else 1, 2))
    assert config.augment.scale_draw == "side"


@pytest.mark.parametrize("name", preset_names())
def test_a_dry_run_of_every_preset_prints_its_settings(run, data, name, tmp_path):
    flags = ("--dry-run", "--preset", name, "--no-pretrained", "--device", "cpu")
    code, out, err = run("train", *flags)
    assert code == 0, err
    settings = tmp_path / "settings.toml"
    settings.write_text(out)
    start = load_run_config(preset=name, overrides=[("model.pretrained", "none")]).resolved()
    assert load_run_config(config=settings) == start
    assert "7 training and 1 validation images" in out


@pytest.mark.parametrize(
    ("name", "statistics"),
    [("clip-rn50-sha", "imagenet"), ("vgg19-sha", "imagenet"), ("zip-n-sha", "clip")],
)
def test_the_model_of_a_preset_has_the_published_statistics(prepared, name, statistics):
    config = load_run_config(preset=name).model
    bins = training_bins([prepared], block=config.block, chosen=config.bins, write=False)
    with torch.device("meta"):
        model = empty_model(config, bins)
    assert model.normalisation == NORMALISATIONS[statistics]
    others = [each for each in PUBLISHED if each.startswith(name[:3])]
    assert {load_run_config(preset=each).model.normalisation for each in others} == {
        config.normalisation
    }


def test_zip_n_trains_at_blocks_of_16(run, data, workplace):
    small = {"train.epochs": 1, "train.crop": 64, "train.batch_size": 4, "train.workers": 0}
    sets = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    flags = ("--preset", "zip-n-sha", "--no-pretrained", "--device", "cpu", *sets)
    code, out, err = run("train", *flags)
    assert code == 0, err
    folder = (workplace / out.strip()).parent
    (line,) = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    assert (line["steps"], line["complete"]) == (2, True)
    assert line["gradient_norm"] > 0
    counter = load(folder / "best", device="cpu")
    assert counter.model.bins.block == 16
    assert counter.model.bins.ranges == BINS["zip-n-sha"]
    assert counter.model.normalisation == NORMALISATIONS["clip"]
    assert counter.model(torch.rand(1, 3, 64, 96)).counts.shape == (1, 1, 4, 6)
