"""Training that starts from a checkpoint starts as that counts, and goes on without it."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from crowdcount.config import RunConfig, given_settings, load_run_config
from crowdcount.core.bins import Bins
from crowdcount.core.image import WorkingSize
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.errors import ConfigError, InputMissingError, UsageError
from crowdcount.files import sha256_file
from crowdcount.models.build import build_model
from crowdcount.models.checkpoints.card import Card, InitialWeights
from crowdcount.models.checkpoints.format import load_checkpoint, save_checkpoint
from crowdcount.models.config import ModelConfig
from crowdcount.runs.folder import LOG, STATE, RunFolder
from crowdcount.workflows.card import card_lines, pack, read_card
from crowdcount.workflows.counter import load
from crowdcount.workflows.overfit import overfit
from crowdcount.workflows.plan import (
    estimate_run,
    first_bins,
    first_model,
    initial_checkpoint,
    new_run_config,
)
from crowdcount.workflows.preprocess import preprocess
from crowdcount.workflows.runs import compare
from crowdcount.workflows.show_batch import draw_batch
from crowdcount.workflows.train import resume, train
from tests.models.small_backbones import shrunken

SMALL = {"train.batch_size": 4, "train.crop": 64, "train.workers": 0, "train.epochs": 1}
STILL = {"optim.lr": 1e-12}
"""Steps so small that every loss is that of the first weights."""

BINS = (0, 1, 3)
"""Others than those of the data."""


@pytest.fixture(scope="module")
def data(scenes, tmp_path_factory):
    (result,) = preprocess(scenes, out=tmp_path_factory.mktemp("init") / "square")
    return PreparedDataset.open(result.folder)


@pytest.fixture(scope="module")
def taught(data, tmp_path_factory):
    """A run that has learned something, with bins of its own."""
    folder = tmp_path_factory.mktemp("taught")
    (folder / "mine.toml").write_text(f"starts = {list(BINS)}\nvalues = [0, 1.3, 3.1]\n")
    config = load_run_config(
        overrides=[
            *SMALL.items(),
            *{
                "model.backbone": "timm:test_resnet",
                "model.pretrained": "none",
                "model.neck_width": 8,
                "model.normalisation": "imagenet",
                "model.bins": str(folder / "mine.toml"),
                "optim.lr": 0.01,
                "train.epochs": 8,
            }.items(),
        ]
    )
    result = train(config, [data], out=folder / "runs" / "taught", device="cpu")
    assert not (data.folder / "bins-r8.json").exists()
    return result.run


def settings(init, **changes):
    overrides = [*SMALL.items(), ("train.init", str(init)), *dotted(changes).items()]
    return new_run_config(given_settings(overrides=overrides))


def dotted(changes):
    return {key.replace("__", "."): value for key, value in changes.items()}


def with_own_statistics(run, folder):
    """A copy of the best checkpoint of a run that says it has channel statistics of its own."""
    copy = shutil.copytree(run / "best", folder / "own")
    told = json.loads((copy / "config.json").read_text())
    told["normalisation"] = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    (copy / "config.json").write_text(json.dumps(told))
    return copy


def first_loss(run):
    return json.loads((run / LOG).read_text().splitlines()[0])["loss"]


def weights_of(run):
    return (run / "last" / "model.safetensors").read_bytes()


def start(config, data, **options):
    """The model before its first step."""
    init = initial_checkpoint(config)
    return first_model(
        config, first_bins(config, [data], init=init, **options), init=init, offline=True
    )


# ---- what it starts as


def test_without_a_step_it_counts_as_the_checkpoint_does(taught, data):
    config = settings(taught)
    model = start(config, data)
    assert model.training
    images = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(3))
    theirs = load_checkpoint(taught / "best").model
    with torch.no_grad():
        counts, expected = model.eval()(images).counts, theirs(images).counts
    assert torch.equal(counts, expected)
    assert expected.sum() > 0


def test_it_starts_at_the_loss_of_the_checkpoint_and_not_at_that_of_random_weights(
    taught, data, workplace
):
    config = settings(taught, **STILL)
    started = train(config, [data], out=Path("started"), device="cpu").run
    fresh = dataclasses.replace(config, train=dataclasses.replace(config.train, init=None))
    bins = str(Path(load_checkpoint(taught / "best").card.settings["model"]["bins"]))
    fresh = dataclasses.replace(fresh, model=dataclasses.replace(config.model, bins=bins))
    random = train(fresh, [data], out=Path("random"), device="cpu").run
    learned = json.loads((taught / LOG).read_text().splitlines()[-1])["loss"]
    assert first_loss(started) < 0.5 * (learned + first_loss(random))
    assert first_loss(started) < 0.8 * first_loss(random)


def test_settings_bins_and_statistics_come_with_the_weights(taught, data, tmp_path):
    config = settings(with_own_statistics(taught, tmp_path))
    model = start(config, data)
    assert config.model == dataclasses.replace(
        load_checkpoint(taught / "best").model.config, bins=None
    )
    assert model.bins.starts == BINS
    assert model.normalisation.mean == (0.4, 0.5, 0.6)


def test_sentences_come_with_the_weights_of_a_clip_model(data, tmp_path):
    bins = Bins(block=16, starts=(0, 1, 2), values=(0.0, 1.0, 2.5))
    with shrunken():
        config = ModelConfig(
            backbone="clip-vit-b-16",
            pretrained="none",
            block=16,
            prompts="digits",
            prompt_template="A square with {people}.",
            prompt_tokens=3,
        )
        theirs = build_model(config, bins, offline=True)
        card = Card(working_size=WorkingSize(short_side_min=64, long_side_max=512))
        save_checkpoint(tmp_path / "clip", theirs, card=card)
        for change in ({}, {"model__tuning": "prompts"}):
            config = settings(tmp_path / "clip", **change)
            model = start(config, data)
            assert model.prompts == theirs.prompts
            found = model.state_dict()
            assert all(torch.equal(found[k], each) for k, each in theirs.state_dict().items())
        config = settings(tmp_path / "clip", model__tuning="full")
        with pytest.raises(ConfigError, match=r"model\.tuning: 'full' .*'auto'"):
            start(config, data)


def test_the_starter_is_a_start(starter, data, workplace):
    result = train(settings("starter", **STILL), [data], out=Path("run"), device="cpu")
    ours, theirs = load(result.checkpoint, device="cpu"), load("starter", device="cpu")
    assert ours.model.bins == theirs.model.bins
    assert ours.model.config.neck_width == theirs.model.config.neck_width == 8


# ---- the encoder alone


def test_an_encoder_alone_gets_a_new_head_and_the_bins_of_the_data(taught, data):
    new = {"model__neck_width": 16, "model__neck_norm": "layer"}
    config = settings(taught, train__init_part="encoder", **new)
    assert config.model.backbone == "timm:test_resnet"
    assert config.model.normalisation == "imagenet"
    model = start(config, data)
    bins = model.bins
    assert bins.starts != BINS
    theirs = load_checkpoint(taught / "best").model
    found = model.encoder.state_dict()
    assert all(torch.equal(found[k], each) for k, each in theirs.encoder.state_dict().items())
    assert model.head[-1].in_channels == 16
    (data.folder / "bins-r8.json").unlink()


def test_the_channel_statistics_come_with_an_encoder(taught, data, tmp_path):
    config = settings(with_own_statistics(taught, tmp_path), train__init_part="encoder")
    model = start(config, data, write=False)
    assert model.normalisation.mean == (0.4, 0.5, 0.6)


def test_a_run_from_an_encoder_is_seeded_and_remembers_it(taught, data, workplace):
    config = settings(taught, train__init_part="encoder", model__neck_width=4)
    one = train(config, [data], out=Path("one"), device="cpu")
    other = train(config, [data], out=Path("other"), device="cpu")
    assert weights_of(one.run) == weights_of(other.run)
    begun = load_checkpoint(one.checkpoint).card.provenance.init
    assert begun.weights_sha256 == sha256_file(taught / "best" / "model.safetensors")
    (data.folder / "bins-r8.json").unlink()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"model__backbone": "timm:resnet10t"},
            r"model\.backbone: .* made with 'timm:test_resnet'",
        ),
        ({"model__normalisation": "clip"}, r"model\.normalisation: .* made with 'imagenet'"),
        ({"model__weights": "w.pth"}, r"model\.weights: .* the weights are those of train\.init"),
        ({"model__frozen_head_statistics": True}, r"model\.frozen_head_statistics: a new head"),
        ({"train__init_part": "half"}, r"train\.init_part: expected all or encoder, got 'half'"),
    ],
)
def test_what_contradicts_the_encoder_is_refused(taught, changes, told):
    with pytest.raises(ConfigError, match=told):
        settings(taught, **{"train__init_part": "encoder", **changes})


def test_an_encoder_of_no_checkpoint_is_refused():
    with pytest.raises(ConfigError, match=r"train\.init_part: .* no checkpoint"):
        load_run_config(overrides=[("train.init_part", "encoder")])


def test_a_clip_encoder_alone_is_refused_for_want_of_sentences(tmp_path):
    bins = Bins(block=16, starts=(0, 1, 2), values=(0.0, 1.0, 2.5))
    with shrunken():
        config = ModelConfig(backbone="clip-vit-b-16", pretrained="none", block=16)
        card = Card(working_size=WorkingSize(short_side_min=64, long_side_max=512))
        clip = build_model(config, bins, offline=True)
        save_checkpoint(tmp_path / "clip", clip, card=card)
        with pytest.raises(ConfigError, match=r"train\.init_part: .* text encoder"):
            settings(tmp_path / "clip", train__init_part="encoder", model__block=16)


# ---- settings


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("model.backbone", "clip-rn50", "'timm:test_resnet'"),
        ("model.neck_width", 16, "made with 8"),
        ("model.block", 16, "made with 8"),
        ("model.head", "zip", "'ebc'"),
        ("model.normalisation", "clip", "'imagenet'"),
        ("model.prompts", "digits", "'words'"),
        ("model.weights", "w.pth", "the weights are those of train.init"),
        ("model.pretrained", "auto", "the weights are those of train.init"),
        ("model.bins", "sha-r8-t2", "0, 1-2, 3+"),
    ],
)
def test_what_contradicts_the_checkpoint_is_refused(taught, key, value, told):
    with pytest.raises(ConfigError) as caught:
        settings(taught, **{key: value})
    assert f"{key}: {value!r}" in str(caught.value)
    assert told in str(caught.value)


def test_what_agrees_or_is_free_is_taken(taught, data):
    same = {"model.backbone": "timm:test_resnet", "model.pretrained": "none", "model.block": 8}
    assert settings(taught, **same) == settings(taught)
    free = {"model.tuning": "frozen", "model.window": 64, "model.window_stride": 32}
    config = settings(taught, **free)
    model = start(config, data)
    assert model.config.window == 64
    assert not any(each.requires_grad for each in model.encoder.parameters())


def test_a_run_file_of_such_a_run_says_it_again(taught):
    config = settings(taught)
    assert load_run_config(overrides=flat(config.to_mapping())) == config


def flat(tree):
    return [(f"{s}.{key}", value) for s, values in tree.items() for key, value in values.items()]


def test_settings_that_never_met_the_checkpoint_are_refused(taught, data, workplace):
    config = RunConfig.from_mapping({"train": {"init": str(taught)}})
    with pytest.raises(ConfigError, match=r"model\.backbone: 'clip-rn50'"):
        train(config, [data], out=Path("run"), device="cpu")
    assert not Path("run").exists()


def test_a_misspelt_setting_and_a_checkpoint_that_is_not_there_are_told(taught, no_starter):
    with pytest.raises(ConfigError, match=r"model\.nekc_width: no such setting; did you mean"):
        settings(taught, model__nekc_width=3)
    with pytest.raises(ConfigError, match=r"train\.init"):
        settings("")
    for name in ("starter", "nowhere"):
        with pytest.raises(InputMissingError, match=name):
            settings(name)


# ---- record


def test_the_run_remembers_what_it_started_from(taught, data, workplace):
    result = train(settings(taught), [data], out=Path("runs/tuned"), device="cpu")
    digest = sha256_file(taught / "best" / "model.safetensors")
    begun = {"name": "taught", "weights_sha256": digest}
    assert dataclasses.asdict(RunFolder.open(result.run).record.init) == begun
    assert load_checkpoint(result.checkpoint).card.provenance.init == InitialWeights(**begun)
    pack(result.checkpoint, Path("packed"))
    assert str(taught.parent) not in Path("packed/config.json").read_text()
    (line,) = [each for each in card_lines(read_card(Path("packed"))) if "started from" in each]
    assert "taught, whose data and terms count, too" in line
    assert digest in line
    found = compare([RunFolder.open(taught), RunFolder.open(result.run)])
    assert found.settings["init"] == ("-", f"taught ({digest[:8]})")


class Stopper:
    """Asks for a stop after the first step."""

    done = False

    def started(self, *, epochs, steps, done=0):
        pass

    def stepped(self, loss):
        self.done = True

    def finished_epoch(self, report, best):
        pass


@pytest.fixture
def begun(taught, data, workplace):
    """A run that was stopped after one step, and the weights of one that was not."""
    shutil.copytree(taught / "best", "init")
    config = settings("init", train__epochs=2)
    whole = weights_of(train(config, [data], out=Path("whole"), device="cpu").run)
    stopper = Stopper()
    train(
        config,
        [data],
        out=Path("run"),
        device="cpu",
        should_stop=lambda: stopper.done,
        watcher=stopper,
    )
    return RunFolder.open(Path("run")), whole


def test_a_run_goes_on_without_its_checkpoint(begun):
    run, whole = begun
    shutil.rmtree("init")
    assert not resume(RunFolder.open(run.folder), load_run_config(start=run.config)).interrupted
    assert weights_of(run.folder) == whole


def test_before_its_first_state_it_needs_the_same_checkpoint(begun, checkpoint):
    run, whole = begun
    (run.folder / STATE).unlink()
    shutil.move("init", "away")
    with pytest.raises(InputMissingError, match="init: no checkpoint"):
        resume(RunFolder.open(run.folder))
    shutil.copytree(checkpoint, "init")
    with pytest.raises(UsageError, match="other weights now"):
        resume(RunFolder.open(run.folder))
    shutil.rmtree("init")
    shutil.move("away", "init")
    resume(RunFolder.open(run.folder))
    assert weights_of(run.folder) == whole


# ---- what looks before a run


def test_all_that_looks_before_a_run_sees_the_checkpoint(taught, data):
    config = settings(taught, **STILL)
    own = dataclasses.replace(config, train=dataclasses.replace(config.train, init=None))
    model = load_checkpoint(taught / "best").model
    parameters = sum(each.numel() for each in model.parameters())
    assert estimate_run(config, [data]).parameters == parameters
    drawn, found = draw_batch(config, [data]), overfit(config, [data], crops=2, device="cpu")
    assert not (data.folder / "bins-r8.json").exists()
    assert drawn != draw_batch(own, [data])
    assert found.loss_before < 0.8 * overfit(own, [data], crops=2, device="cpu").loss_before
    (data.folder / "bins-r8.json").unlink()
