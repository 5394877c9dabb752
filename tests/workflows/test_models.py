"""``models list``: backbones, and the checkpoints that are here."""

import json
import shutil
from pathlib import Path

import pytest

from crowdcount.models.backbones import BACKBONES
from crowdcount.models.checkpoints.card import CardText
from crowdcount.workflows.card import pack
from crowdcount.workflows.models import list_backbones, list_checkpoints


@pytest.fixture
def run(run, workplace):
    """Run ``crowdcount models`` in an empty working directory; returns what it prints."""

    def run_command(*arguments):
        code, out, err = run("models", *arguments)
        assert code == 0, err
        return out

    return run_command


@pytest.fixture
def runs(workplace, checkpoint):
    """Three runs: with a best checkpoint, with none yet, and with a damaged one."""
    for name in ("good", "early", "damaged"):
        (workplace / "runs" / name).mkdir(parents=True)
        (workplace / "runs" / name / "run.json").write_text("{}")
    text = CardText(title="Small counter for our square", licence="MIT", name="my-counter")
    pack(checkpoint, workplace / "runs" / "good" / "best", text=text)
    shutil.copytree(checkpoint, workplace / "runs" / "damaged" / "best")
    (workplace / "runs" / "damaged" / "best" / "config.json").write_text("{")
    (workplace / "runs" / "latest").symlink_to("good")


def test_every_backbone_is_listed_with_what_training_needs():
    rows = {row["name"]: row for row in list_backbones().to_json()}
    assert rows.keys() == BACKBONES.keys()
    assert (rows["clip-rn50"]["gmac_448"], rows["clip-rn50"]["parameters_m"]) == (170, 71.8)
    assert (rows["clip-vit-b-16"]["window"], rows["clip-vit-b-16"]["crop"]) == (224, 224)
    assert rows["vgg19"]["window"] is None


def test_checkpoints_that_count_are_listed_once(runs, starter):
    names = [row["name"] for row in list_checkpoints().to_json()]
    assert names == ["starter", "good"]


def test_without_any_the_list_is_empty(workplace, no_starter):
    assert list_checkpoints().rows == []


def test_alone_it_prints_both_tables(run, runs, no_starter):
    out = run()
    backbones, checkpoints = (
        [line.split("\t") for line in table.splitlines()] for table in out.split("\n\n")
    )
    assert backbones[0][0] == "backbone"
    assert [row[0] for row in backbones[1:]] == list(BACKBONES)
    assert {len(row) for row in backbones} == {10}
    assert [row[0] for row in checkpoints] == ["checkpoint", "good"]
    assert {len(row) for row in checkpoints} == {9}
    assert run("list") == out


def test_json_is_one_object(run, runs, starter):
    found = json.loads(run("--json"))
    assert [each["name"] for each in found["backbones"]] == list(BACKBONES)
    assert [each["name"] for each in found["checkpoints"]] == ["starter", "good"]
    assert found["checkpoints"][1]["block"] == 8


def test_names_and_titles_are_those_of_the_cards(runs, starter):
    shipped, good = list_checkpoints().rows
    assert shipped[-2:] == ("tiny", None)
    assert good[-2:] == ("my-counter", "Small counter for our square")


def test_a_checkpoint_with_a_damaged_card_is_left_out(runs, no_starter):
    path = Path("runs/good/best/config.json")
    config = json.loads(path.read_text())
    config["card"]["text"] = "Small counter"
    path.write_text(json.dumps(config))
    assert list_checkpoints().rows == []
