"""`crowdcount eval` in a shell: metrics, gates, folds, exit codes."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.made_up_sets import write_set
from tests.tiny_run import TINY_RUN


def test_eval_prints_metrics(run, data, checkpoint):
    code, out, err = run("eval", "--checkpoint", checkpoint)
    assert code == 0
    names = [line.split("\t")[0] for line in out.splitlines()]
    assert names == ["mae", "rmse", "nae", "images"]
    assert "split val" in err
    assert "guessing the training mean" in err


def test_eval_json_and_csv(run, data, checkpoint):
    code, out, _ = run(
        "eval", "--json", "--split", "test", "--csv", "each.csv", "--checkpoint", checkpoint
    )
    metrics = json.loads(out)
    assert code == 0
    assert metrics["images"] == 3
    with Path("each.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    errors = [abs(float(row["predicted"]) - int(row["heads"])) for row in rows]
    assert metrics["mae"] == pytest.approx(sum(errors) / 3)
    assert run("eval", "--csv", "each.csv", "--checkpoint", checkpoint)[0] == 2


def test_eval_dry_run_writes_nothing(run, data, checkpoint):
    code, out, err = run("eval", "--dry-run", "--csv", "each.csv", "--checkpoint", checkpoint)
    assert (code, out) == (0, "")
    assert "1 images to count\ntheir counts would be listed in each.csv\n" in err
    assert not Path("each.csv").exists()


def test_eval_and_predict_agree_on_the_same_file(run, data, checkpoint):
    run("eval", "--split", "test", "--csv", "each.csv", "--checkpoint", checkpoint)
    with Path("each.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    _, out, _ = run("predict", "--json", *(row["path"] for row in rows), "--checkpoint", checkpoint)
    assert [each["count"] for each in json.loads(out)] == [float(r["predicted"]) for r in rows]


@pytest.mark.parametrize(
    ("gate", "code"), [("mae>0", 5), ("mae>1e9", 0), ("nae < 1e9", 5), ("mea>3", 2), ("mae>", 2)]
)
def test_a_gate_decides_the_exit_code(run, data, checkpoint, gate, code):
    assert run("eval", "--fail-if", gate, "--checkpoint", checkpoint)[0] == code


def test_a_missing_split_exits_3(run, data, checkpoint):
    code, out, err = run("eval", "--split", "dev", "--checkpoint", checkpoint)
    assert (code, out) == (3, "")
    assert "train, val, test" in err


def test_folds_are_asked_for_by_number(run, workplace, checkpoint):
    root = write_set("ucf50", workplace)
    code, out, err = run("preprocess", root)
    assert (code, out) == (0, "data/ucf50\n")
    assert "5 folds of 10 to 10 images" in err
    code, out, err = run("eval", "--fold", "2", "--json", "--checkpoint", checkpoint)
    assert json.loads(out)["images"] == 10
    assert "may have seen these images" in err
    for fold in ("0", "6"):
        code, _, err = run("eval", "--fold", fold, "--checkpoint", checkpoint)
        assert code == 2
        assert "folds 1 to 5" in err
    assert "# 40 training and 10 validation" in run("train", "--fold", "5", "--dry-run")[1]


def test_a_model_remembers_its_fold(run, workplace):
    run("preprocess", write_set("ucf50", workplace))
    code, out, _ = run("train", *TINY_RUN, "--fold", "3")
    assert code == 0
    card = json.loads((Path(out.strip()) / "config.json").read_text())["card"]
    assert card["provenance"]["fold"] == 3
    assert "may have seen" not in run("eval", "--fold", "3")[2]
    assert "not trained with what preprocess held out" in run("eval")[2]


def test_a_set_without_folds_says_how_to_get_some(run, data, checkpoint):
    code, _, err = run("eval", "--fold", "1", "--checkpoint", checkpoint)
    assert code == 2
    assert "--folds" in err
    assert run("preprocess", data.folder, "--folds", "1")[0] == 2


def test_selecting_on_test_images_takes_a_flag_and_is_reported_ever_after(run, data):
    for more in ([], ["--dry-run"]):
        code, out, err = run("train", *TINY_RUN, "--select-on", "test", *more)
        assert (code, out) == (2, "")
        assert "--allow-test-selection" in err
    assert not Path("runs").exists()
    start = ("train", *TINY_RUN, "--out", "runs/run")
    assert run(*start, "--select-on", "test", "--allow-test-selection")[0] == 0
    code, out, err = run("eval", "--split", "test")
    assert code == 0
    assert out.splitlines()[-1] == "selected_on\ttest"
    assert "was selected on test images" in err
    assert json.loads(run("eval", "--split", "test", "--json")[1])["selected_on"] == "test"
    assert "was selected on test images" not in run("eval")[2]
    assert run("runs")[1].splitlines()[1].endswith("\ttest")
    code, _, err = run("train", "--resume", "runs/run", "--allow-test-selection")
    assert code == 2
    assert "is for a new run" in err
    assert run("train", *TINY_RUN)[0] == 0
    assert "selected_on" not in run("eval", "--split", "test")[1]


def test_several_sets_are_measured_together_and_each(run, data, checkpoint):
    shutil.copytree("data/square", "data/other")
    both = ("eval", "--data", "data/square", "--data", "data/other", "--checkpoint", checkpoint)
    code, _, err = run(*both)
    assert code == 0
    assert "data/square: MAE" in err
    assert "data/other: MAE" in err
    found = json.loads(run(*both, "--json")[1])
    assert list(found["sets"]) == ["data/square", "data/other"]
    assert sum(each["images"] for each in found["sets"].values()) == found["images"]
