"""A card says what is known and what is not; a packed model counts as before and tells no paths."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from crowdcount.config import RunConfig
from crowdcount.core.bins import Bins
from crowdcount.core.image import WorkingSize
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.errors import BadInputError, ConfigError, InputMissingError, UsageError
from crowdcount.files import sha256_file
from crowdcount.models.build import build_model
from crowdcount.models.checkpoints.card import (
    Card,
    CardText,
    Measured,
    Source,
    Timed,
    read_card_text,
)
from crowdcount.models.checkpoints.format import load_checkpoint, save_checkpoint
from crowdcount.models.config import ModelConfig
from crowdcount.workflows.bins import make_bins, write_bins
from crowdcount.workflows.card import card_lines, pack, read_card
from crowdcount.workflows.counter import load
from crowdcount.workflows.preprocess import preprocess
from crowdcount.workflows.train import train

DOCS = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)
LEAST = 'title = "Ours"\nlicence = "MIT"\n'
SAID = (
    *("data", "began with", "licence", "protocol", "metrics"),
    *("known failures", "speed"),
)


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    """A run whose settings name files of this machine."""
    folder = tmp_path_factory.mktemp("card")
    (result,) = preprocess(scenes, out=folder / "square")
    data = PreparedDataset.open(result.folder)
    write_bins(data, make_bins([data], block=8))
    model = {"backbone": "timm:test_resnet", "pretrained": "none", "neck_width": 8}
    config = RunConfig.from_mapping(
        {
            "model": model | {"bins": str(result.folder / "bins-r8.json")},
            "train": {"epochs": 1, "batch_size": 4, "crop": 64, "workers": 0},
        }
    )
    return train(config, [data], out=folder / "runs" / "begun", device="cpu").run


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "card.toml"
    path.write_text(EXAMPLE)
    return read_card_text(path)


def section(card, label):
    """The lines of a card under a label."""
    lines, found = list(card_lines(card))[1:], []
    start = next(i for i, line in enumerate(lines) if line.startswith(f"  {label}"))
    for line in lines[start:]:
        if found and not line.startswith(" " * 18):
            break
        found.append(line[18:])
    return found


# ---- text


def test_the_example_of_the_docs_names_every_key(text):
    for kind in (CardText, Source, Measured, Timed):
        for key in dataclasses.fields(kind):
            assert re.search(rf"^(\[\[)?{key.name}\b", EXAMPLE, re.MULTILINE), key.name
    assert text.metrics[0].mae == 4.1
    assert text.data[0].images == 270


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("title = 'Ours'\n", "licence"),
        (LEAST.replace("Ours", ""), "title"),
        (LEAST + "colour = 'red'\n", "colour"),
        (LEAST + "[[metrics]]\ndata = 'a'\nimages = 3\nmae = 1\nrmse = 2\n", "metrics.0.command"),
        (LEAST + "[[data]]\nname = 'a'\nterms = 'b'\nimages = 0\n", "data.0.images"),
        (LEAST + "[[speed]]\nimage='a'\nmachine='b'\ncommand='c'\nseconds=-1\n", "speed.0.seconds"),
        ("title = ", "no text of a card"),
    ],
)
def test_a_wrong_text_names_its_file_and_key(tmp_path, lines, message):
    path = tmp_path / "card.toml"
    path.write_text(lines)
    with pytest.raises(ConfigError, match=message) as caught:
        read_card_text(path)
    assert str(path) in str(caught.value)


def test_a_text_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(InputMissingError, match=r"card\.toml"):
        read_card_text(tmp_path / "card.toml")


# ---- show


def test_a_card_tells_what_the_checkpoint_shows(run):
    card = read_card(run / "best")
    model = load_checkpoint(run / "best").model
    told = card.to_json()
    assert told["parameters"] == sum(each.numel() for each in model.parameters())
    assert told["bytes"] == sum(path.stat().st_size for path in (run / "best").iterdir())
    assert told["weights_sha256"] == sha256_file(run / "best" / "model.safetensors")
    assert told["stored_as"] == ["float32"]
    assert told["bins"] == model.bins.to_json()["bins"]
    assert told["block"] == 8
    assert told["training"]["data"] == ["square"]
    assert told["validation"]["val"]["images"] == 1
    assert told["software"]["torch"] == torch.__version__
    assert section(card, "trained on") == ["square: 7 images"]
    assert section(card, "validation")[0].startswith("val, 1 images: MAE ")
    assert section(card, "windows") == ["none: images are counted whole"]


def test_regression_has_no_bins(tmp_path):
    config = ModelConfig(backbone="timm:test_resnet", head="regression", pretrained="none")
    size = WorkingSize(short_side_min=64, long_side_max=512)
    model = build_model(config, Bins(block=8, starts=(0, 1), values=(0.0, 1.5)))
    save_checkpoint(tmp_path / "plain", model, card=Card(working_size=size))
    card = read_card(tmp_path / "plain")
    assert section(card, "bins") == ["none: the heads of a block are one number"]
    assert (card.to_json()["block"], card.to_json()["bins"]) == (8, None)


def test_what_nobody_wrote_is_not_known(run, checkpoint):
    card = read_card(run / "best")
    assert [section(card, label) for label in SAID] == [["not known"]] * len(SAID)
    for key in ("title", "licence", "protocol", "metrics", "known_failures", "speed", "data"):
        assert card.to_json()[key] is None
    bare = read_card(checkpoint)
    assert section(bare, "trained on") == ["not known"]
    assert section(bare, "validation") == ["not known"]


def test_every_word_of_the_text_is_shown(run, tmp_path, text):
    pack(run / "best", tmp_path / "packed", text=text)
    card = read_card(tmp_path / "packed")
    shown = "\n".join(card_lines(card))
    for value in leaves(dataclasses.asdict(text)):
        for line in value.splitlines() if isinstance(value, str) else [f"{value:g}"]:
            assert line in shown
    assert len(section(card, "protocol")) == 2
    told = json.loads(json.dumps(card.to_json(), allow_nan=False))
    assert told["metrics"] == [dataclasses.asdict(each) for each in text.metrics]
    assert told["known_failures"] == list(text.known_failures)
    assert told["name"] == "my-counter"


def leaves(tree):
    """The values of a tree that are neither tables, lists nor unset."""
    if isinstance(tree, dict | list | tuple):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(each)
    elif tree is not None:
        yield tree


# ---- pack


def test_no_path_of_this_machine_is_left(run, tmp_path):
    before = (run / "best" / "config.json").read_text()
    assert str(run.parents[1]) in before
    pack(run / "best", tmp_path / "packed")
    config = json.loads((tmp_path / "packed" / "config.json").read_text())
    assert [each for each in leaves(config) if isinstance(each, str) and "/" in each] == []
    assert config["model"]["bins"] == config["card"]["settings"]["model"]["bins"]
    assert config["model"]["bins"] == "bins-r8.json"
    assert (run / "best" / "config.json").read_text() == before


@pytest.mark.parametrize("half", [False, True])
def test_a_packed_model_counts_as_it_did(run, tmp_path, half, prepared):
    pack(run / "best", tmp_path / "packed", half=half)
    image = prepared.image_path(prepared.records("test")[0])
    first, packed = (load(path, device="cpu") for path in (run / "best", tmp_path / "packed"))
    assert packed.name == first.name == "begun"
    assert packed.working_size == first.working_size
    assert packed.provenance == first.provenance
    expected = first.count(image).total
    assert packed.count(image).total == pytest.approx(expected, rel=1e-2 if half else 0, abs=0)
    assert read_card(tmp_path / "packed").stored_as == (
        ("float16", "float32") if half else ("float32",)
    )


def test_packing_the_same_run_again_gives_the_same_bytes_and_keeps_the_text(run, tmp_path, text):
    pack(run / "best", tmp_path / "one", text=text, half=True)
    pack(tmp_path / "one", tmp_path / "two", half=True)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_only_a_checkpoint_is_replaced_and_only_when_told(run, tmp_path):
    out = tmp_path / "packed"
    pack(run / "best", out)
    with pytest.raises(UsageError, match="already exists"):
        pack(run / "best", out, half=True)
    pack(run / "best", out, half=True, force=True)
    assert read_card(out).stored_as == ("float16", "float32")
    (tmp_path / "thesis").mkdir()
    with pytest.raises(UsageError, match="not a checkpoint"):
        pack(run / "best", tmp_path / "thesis", force=True)
    assert (tmp_path / "thesis").is_dir()


def test_a_damaged_text_is_bad_input(run, tmp_path):
    pack(run / "best", tmp_path / "packed")
    path = tmp_path / "packed" / "config.json"
    config = json.loads(path.read_text())
    config["card"]["text"] = {"title": "Ours"}
    path.write_text(json.dumps(config))
    with pytest.raises(BadInputError, match=r"card\.text\.licence"):
        read_card(tmp_path / "packed")
