"""Runs are listed with what came of them, and compared by what differs."""

import json
import shutil
from pathlib import Path

import pytest

from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.errors import BadInputError, InputMissingError, UsageError
from crowdcount.runs.folder import LOG, RECORD, SETTINGS, RunFolder, find_run
from crowdcount.workflows.preprocess import preprocess
from crowdcount.workflows.runs import compare, list_runs, summary
from crowdcount.workflows.train import train
from tests.tiny_run import tiny_config


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    """A folder with two runs, the earlier of which is last by name, and a link to the later."""
    folder = tmp_path_factory.mktemp("trained")
    (result,) = preprocess(scenes, out=folder / "square")
    data = PreparedDataset.open(result.folder)
    settings = tiny_config(train__epochs=2)
    train(settings, [data], out=folder / "runs" / "second", device="cpu")
    changed = tiny_config(train__epochs=2, optim__lr=0.001, optim__clip_norm=1.0)
    stops = iter([False, False, True])
    train(
        changed,
        [data],
        out=folder / "runs" / "first",
        device="cpu",
        should_stop=lambda: next(stops),
    )
    return folder / "runs"


@pytest.fixture
def runs(trained, workplace):
    """A copy of them that tests may damage."""
    shutil.copytree(trained, "runs", symlinks=True)
    return Path("runs")


def log_of(run):
    return [json.loads(line) for line in (run / LOG).read_text().splitlines()]


def test_runs_are_listed_once_from_the_earliest_on(runs):
    assert (runs / "latest").is_symlink()
    found, problems = list_runs()
    assert problems == []
    assert [each.name for each in found] == ["second", "first"]
    assert [each.state for each in found] == ["finished", "unfinished"]
    assert [(each.epochs_done, each.epochs) for each in found] == [(2, 2), (1, 2)]
    assert all(each.data == ("square",) for each in found)
    assert all(each.backbone == "timm:test_resnet" for each in found)
    for each in found:
        validated = [line for line in log_of(runs / each.name) if line["val"]]
        best = min(validated, key=lambda line: line["val"]["mae"])
        assert (each.best_mae, each.best_epoch) == (best["val"]["mae"], best["epoch"])


def test_one_that_another_process_trains_is_running(runs, monkeypatch):
    monkeypatch.setattr("crowdcount.workflows.runs.is_locked", lambda folder: True)
    assert [each.state for each in list_runs()[0]] == ["finished", "running"]


def test_what_is_being_written_or_was_never_validated_is_no_fault(runs):
    path = runs / "first" / LOG
    path.write_text(path.read_text() + '{"epoch": 2, "lo')
    assert summary(RunFolder.open(runs / "first")).epochs_done == 1
    path.write_text("")
    found = summary(RunFolder.open(runs / "first"))
    assert (found.epochs_done, found.best_mae, found.best_epoch) == (0, None, None)
    assert compare([RunFolder.open(runs / "first")] * 2).metrics["loss"] == (None, None)


def test_no_runs_say_where_they_were_looked_for(workplace):
    with pytest.raises(InputMissingError, match="there are no runs"):
        list_runs()


@pytest.mark.parametrize("name", [RECORD, SETTINGS, LOG])
@pytest.mark.parametrize("damage", ["<html>\n", '{"epoch": "one"}\n', "[1]\n", "[" * 9999 + "\n"])
def test_a_damaged_run_does_not_hide_the_others(runs, name, damage):
    (runs / "first" / name).write_text(damage)
    found, (problem,) = list_runs()
    assert [each.name for each in found] == ["second"]
    assert str(runs / "first") in str(problem) or "no such setting" in str(problem)


def test_a_run_is_named_by_its_folder_or_under_runs(runs):
    assert find_run("first").folder == find_run("runs/first").folder == runs / "first"
    assert find_run("latest").record == find_run("first").record
    with pytest.raises(InputMissingError, match=r"looked for  third.* and runs/third"):
        find_run("third")


def test_only_settings_that_differ_are_compared(runs):
    found = compare([find_run("second"), find_run("first")])
    assert found.runs == ("second", "first")
    assert found.settings == {"optim.lr": (0.0001, 0.001), "optim.clip_norm": (None, 1.0)}
    for position, name in enumerate(found.runs):
        log = log_of(runs / name)
        best = next(line for line in reversed(log) if line["best"])
        values = {key: column[position] for key, column in found.metrics.items()}
        assert {key: values[key] for key in ("mae", "rmse", "nae")} == {
            key: best["val"][key] for key in ("mae", "rmse", "nae")
        }
        assert values["best_epoch"] == best["epoch"]
        assert values["loss"] == log[-1]["loss"]
        assert values["seconds"] == pytest.approx(sum(line["seconds"] for line in log))


def test_other_data_and_bins_count_as_a_difference(runs):
    record = json.loads((runs / "first" / RECORD).read_text())
    record["data"][0]["manifest_sha256"] = "0123456789"
    record["bins"]["bins"][-1]["value"] += 0.5
    (runs / "first" / RECORD).write_text(json.dumps(record))
    found = compare([find_run("second"), find_run("first"), find_run("second")]).settings
    assert found["data"][1] == "square (01234567)"
    assert found["data"][0] == found["data"][2] != found["data"][1]
    assert found["bins"][0] == found["bins"][2] != found["bins"][1]
    assert found["optim.lr"] == (0.0001, 0.001, 0.0001)


def test_one_run_alone_cannot_be_compared(runs):
    with pytest.raises(UsageError, match="nothing to compare first with"):
        compare([find_run("first")])


def test_a_damaged_log_is_reported_as_damaged(runs):
    (runs / "first" / LOG).unlink()
    with pytest.raises(BadInputError, match=r"log\.jsonl: not the log of a run"):
        compare([find_run("first"), find_run("second")])
