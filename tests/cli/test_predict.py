"""`crowdcount predict` in a shell: formats, paths, heatmaps, exit codes."""

import base64
import csv
import io
import json
import os
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
from PIL import Image

from crowdcount.workflows.predict import FORMATS, Prediction, write_predictions

ROOT = Path(__file__).parents[2]


def test_predict_prints_path_tab_count(run, photos, checkpoint):
    code, out, err = run("predict", "a.png", "tiny.png", "--checkpoint", checkpoint)
    assert code == 0
    assert re.fullmatch(r"a\.png\t\d+\.\d\ntiny\.png\t\d+\.\d\n", out)
    assert "model" in err


def test_a_bad_image_is_nan_in_its_place_and_exit_4(run, photos, checkpoint):
    code, out, err = run("predict", "broken.jpg", "a.png", "--checkpoint", checkpoint)
    assert code == 4
    assert re.fullmatch(r"broken\.jpg\tnan\na\.png\t\d+\.\d\n", out)
    assert "broken.jpg" in err
    assert "Traceback" not in err


def test_strict_stops_at_the_first_bad_image(run, photos, checkpoint):
    code, out, err = run("predict", "--strict", "broken.jpg", "a.png", "--checkpoint", checkpoint)
    assert (code, out) == (4, "")
    assert "error: broken.jpg: " in err
    assert "Traceback" not in err


def test_count_only_prints_numbers_alone(run, photos, checkpoint):
    code, out, _ = run("predict", "--count-only", "a.png", "broken.jpg", "--checkpoint", checkpoint)
    assert code == 4
    assert re.fullmatch(r"\d+\.\d\nnan\n", out)


@pytest.mark.parametrize("form", [["--json"], ["--format", "json"]])
def test_json_records_follow_the_schema(run, photos, checkpoint, form):
    code, out, _ = run("predict", *form, "a.png", "broken.jpg", "--checkpoint", checkpoint)
    assert code == 4
    schema = json.loads((ROOT / "docs" / "predict.schema.json").read_text(encoding="utf-8"))
    good, bad = json.loads(out)
    for record in (good, bad):
        jsonschema.validate(record, schema)
    assert (good["width"], good["height"], good["model"]) == (130, 90, "tiny")
    assert "error" in bad
    assert "count" not in bad


def test_jsonl_has_the_same_records(run, photos, checkpoint):
    _, array, _ = run("predict", "--json", "a.png", "tiny.png", "--checkpoint", checkpoint)
    _, lines, _ = run("predict", "--jsonl", "a.png", "tiny.png", "--checkpoint", checkpoint)
    assert [json.loads(line) for line in lines.splitlines()] == json.loads(array)


def test_csv_has_one_row_an_image(run, photos, checkpoint):
    code, out, _ = run(
        "predict", "--format", "csv", "a.png", "broken.jpg", "--checkpoint", checkpoint
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 4
    assert [row["path"] for row in rows] == ["a.png", "broken.jpg"]
    assert float(rows[0]["count"]) >= 0
    assert rows[1]["count"] == ""
    assert rows[1]["error"]


def test_formats_do_not_mix(run, photos, checkpoint):
    assert run("predict", "--json", "--jsonl", "a.png", "--checkpoint", checkpoint)[0] == 2
    assert run("predict", "--json", "--count-only", "a.png", "--checkpoint", checkpoint)[0] == 2


def test_odd_file_names_stay_on_one_line(run, photos, checkpoint):
    odd = "t\tab\\new\nline.png"
    shutil.copy("a.png", odd)
    _, out, _ = run("predict", odd, "--checkpoint", checkpoint)
    assert out.startswith(r"t\tab\\new\nline.png" + "\t")
    assert out.count("\n") == 1


def test_a_name_that_is_not_utf8_survives(run, photos, checkpoint):
    odd = b"caf\xe9.png"
    shutil.copy(b"a.png", odd)
    _, text, _ = run("predict", os.fsdecode(odd), "--checkpoint", checkpoint)
    assert os.fsencode(text).startswith(odd + b"\t")
    _, out, _ = run("predict", "--jsonl", os.fsdecode(odd), "--checkpoint", checkpoint)
    assert base64.b64decode(json.loads(out)["path_bytes"]) == odd


def test_output_goes_to_a_file_that_is_not_overwritten(run, photos, checkpoint):
    arguments = ("predict", "a.png", "--checkpoint", checkpoint, "-o", "counts.txt")
    assert run(*arguments)[:2] == (0, "")
    assert Path("counts.txt").read_bytes().startswith(b"a.png\t")
    assert run(*arguments)[0] == 2
    assert run(*arguments, "--force")[0] == 0


@pytest.mark.parametrize("form", FORMATS)
def test_what_was_counted_before_a_stop_is_written(tmp_path, form):
    first = Prediction(path=Path("a.png"), model="tiny", width=1, height=1, count=2.0)

    def stopped():
        yield first
        assert written  # before the next image is counted
        raise KeyboardInterrupt

    written = []
    with pytest.raises(KeyboardInterrupt):
        write_predictions(stopped(), form=form, write=written.append)
    whole = []
    write_predictions([first], form=form, write=whole.append)
    assert b"".join(written) == b"".join(whole)
    assert form != "json" or json.loads(b"".join(whole)) == [first.to_json()]


def test_scale_acts(run, photos, checkpoint):
    counts = {
        run("predict", "a.png", "--count-only", "--scale", scale, "--checkpoint", checkpoint)[1]
        for scale in ("1", "3")
    }
    assert len(counts) == 2
    assert run("predict", "a.png", "--scale", "0", "--checkpoint", checkpoint)[0] == 2


def test_heatmaps_keep_the_paths_below_the_common_folder(run, photos, checkpoint):
    for folder in ("x", "y"):
        Path(folder).mkdir()
        shutil.copy("a.png", f"{folder}/a.png")
    code, out, err = run(
        "predict", "--jsonl", "--heatmap", "x/a.png", "y/a.png", "--checkpoint", checkpoint
    )
    assert code == 0
    drawn = [json.loads(line)["heatmap"] for line in out.splitlines()]
    assert drawn == ["heatmaps/x/a.png.png", "heatmaps/y/a.png.png"]
    for path in drawn:
        assert path in err
        with Image.open(path) as picture:
            assert picture.width >= 130


def test_no_heatmap_leaves_its_folder(run, photos, checkpoint):
    for folder in ("x", "y"):
        Path(folder).mkdir()
        shutil.copy("a.png", f"{folder}/a.png")
    arguments = ("--heatmap", "x/../y/a.png", "x/a.png", "--checkpoint", checkpoint)
    _, out, _ = run("predict", "--jsonl", *arguments)
    drawn = [json.loads(line)["heatmap"] for line in out.splitlines()]
    assert drawn == ["heatmaps/y/a.png.png", "heatmaps/x/a.png.png"]


def test_predict_dry_run_writes_and_counts_nothing(run, photos, checkpoint):
    code, out, err = run(
        *("predict", "a.png", "tiny.png", "--heatmap", "-o", "counts.txt", "--dry-run"),
        *("--checkpoint", checkpoint),
    )
    assert (code, out) == (0, "")
    assert "2 images to count into counts.txt" in err
    assert "heatmaps/tiny.png.png" in err
    assert not Path("counts.txt").exists()
    assert not Path("heatmaps").exists()


def test_a_heatmap_replaces_a_heatmap_and_nothing_else(run, photos, checkpoint):
    arguments = ("predict", "a.png", "--heatmap-dir", "here", "--checkpoint", checkpoint)
    assert run(*arguments)[0] == 0
    assert run(*arguments)[0] == 0
    shutil.copy("a.png", "here/a.png.png")
    code, out, err = run(*arguments)
    assert code == 4
    assert out == "a.png\tnan\n"
    assert "not a heatmap of ours" in err
    assert run(*arguments, "--force")[0] == 0


def test_nothing_there_exits_3_before_any_work(run, workplace):
    code, out, err = run("predict", "none.jpg")
    assert (code, out) == (3, "")
    assert "none.jpg" in err


def test_no_model_exits_3_and_says_what_to_do(run, photos, no_starter):
    code, out, err = run("predict", "a.png")
    assert (code, out) == (3, "")
    assert "crowdcount train" in err
    assert len(err.splitlines()) <= 3
