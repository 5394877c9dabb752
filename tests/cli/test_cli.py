"""What a shell sees: streams, formats, exit codes. Commands run through main() in this process."""

import base64
import contextlib
import csv
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from typer.main import get_command

import crowdcount
from crowdcount.cli import app, main
from crowdcount.config import load_run_config
from crowdcount.core.precision import PRECISIONS
from crowdcount.core.published_bins import PUBLISHED_BINS
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.sources.recipe import load_recipe, recipe_names, recipes_folder
from crowdcount.errors import DivergedError
from crowdcount.workflows.train import train
from tests.layouts import write_set

ROOT = Path(__file__).parents[2]


def commands(group, prefix=""):
    """Every command by what a user types, those of groups too."""
    found = {}
    for name, each in group.commands.items():
        found[prefix + name] = each
        if hasattr(each, "commands"):
            found |= commands(each, f"{prefix}{name} ")
    return found


COMMANDS = commands(get_command(app))


@pytest.fixture
def run(monkeypatch, capfdbinary):
    """Run a command; gives its exit code, its stdout as bytes and its stderr as text."""

    def run_command(*arguments: str | Path) -> tuple[int, bytes, str]:
        monkeypatch.setattr(sys, "argv", ["crowdcount", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    return run_command


@pytest.fixture
def photos(workplace):
    """Three images: of an ordinary size, smaller than a block, and one that is no image."""
    random = np.random.default_rng(0)
    for name, size in {"a.png": (90, 130), "tiny.png": (5, 3)}.items():
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(workplace / name)
    (workplace / "broken.jpg").write_text("<html>not found</html>")
    return workplace


@pytest.fixture
def data(prepared, workplace):
    """A prepared set of one's own under ``data/``."""
    shutil.copytree(prepared.folder, workplace / "data" / "square")
    return PreparedDataset.open(workplace / "data" / "square")


# ---- help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(run, command):
    code, out, _ = run(*command.split(), "-h")
    assert code == 0
    assert f"Example: crowdcount {command}" in out.decode()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_place_in_the_readme(command):
    assert f"crowdcount {command}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_option_of_every_command_says_what_it_does():
    for name, command in COMMANDS.items():
        for parameter in command.params:
            assert getattr(parameter, "help", None), (name, parameter.name)


def test_version(run):
    assert run("--version") == (0, f"crowdcount {crowdcount.__version__}\n".encode(), "")


def test_unknown_option_exits_2(run):
    assert run("predict", "--sclae", "1", "x.jpg")[0] == 2


# ---- predict


def test_predict_prints_path_tab_count(run, photos, checkpoint):
    code, out, err = run("predict", "a.png", "tiny.png", "--checkpoint", checkpoint)
    assert code == 0
    assert re.fullmatch(rb"a\.png\t\d+\.\d\ntiny\.png\t\d+\.\d\n", out)
    assert "model" in err


def test_a_bad_image_is_nan_in_its_place_and_exit_4(run, photos, checkpoint):
    code, out, err = run("predict", "broken.jpg", "a.png", "--checkpoint", checkpoint)
    assert code == 4
    assert re.fullmatch(rb"broken\.jpg\tnan\na\.png\t\d+\.\d\n", out)
    assert "broken.jpg" in err
    assert "Traceback" not in err


def test_strict_stops_at_the_first_bad_image(run, photos, checkpoint):
    code, out, err = run("predict", "--strict", "broken.jpg", "a.png", "--checkpoint", checkpoint)
    assert (code, out) == (4, b"")
    assert "error: broken.jpg: " in err
    assert "Traceback" not in err


def test_count_only_prints_numbers_alone(run, photos, checkpoint):
    code, out, _ = run("predict", "--count-only", "a.png", "broken.jpg", "--checkpoint", checkpoint)
    assert code == 4
    assert re.fullmatch(rb"\d+\.\d\nnan\n", out)


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
    rows = list(csv.DictReader(io.StringIO(out.decode())))
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
    assert out.startswith(rb"t\tab\\new\nline.png" + b"\t")
    assert out.count(b"\n") == 1


def test_a_name_that_is_not_utf8_survives(run, photos, checkpoint):
    odd = b"caf\xe9.png"
    shutil.copy(b"a.png", odd)
    _, text, _ = run("predict", os.fsdecode(odd), "--checkpoint", checkpoint)
    assert text.startswith(odd + b"\t")
    _, out, _ = run("predict", "--jsonl", os.fsdecode(odd), "--checkpoint", checkpoint)
    assert base64.b64decode(json.loads(out)["path_bytes"]) == odd


def test_output_goes_to_a_file_that_is_not_overwritten(run, photos, checkpoint):
    arguments = ("predict", "a.png", "--checkpoint", checkpoint, "-o", "counts.txt")
    assert run(*arguments)[:2] == (0, b"")
    assert Path("counts.txt").read_bytes().startswith(b"a.png\t")
    assert run(*arguments)[0] == 2
    assert run(*arguments, "--force")[0] == 0


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
    assert (code, out) == (0, b"")
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
    assert out == b"a.png\tnan\n"
    assert "no heatmap of ours" in err
    assert run(*arguments, "--force")[0] == 0


def test_nothing_there_exits_3_before_any_work(run, workplace):
    code, out, err = run("predict", "none.jpg")
    assert (code, out) == (3, b"")
    assert "none.jpg" in err


def test_no_model_exits_3_and_says_what_to_do(run, photos, no_starter):
    code, out, err = run("predict", "a.png")
    assert (code, out) == (3, b"")
    assert "crowdcount train" in err
    assert len(err.splitlines()) <= 3


def test_the_environment_names_a_checkpoint(run, photos, checkpoint, monkeypatch):
    monkeypatch.setenv("CROWDCOUNT_CHECKPOINT", str(checkpoint))
    assert run("predict", "a.png")[0] == 0


def test_without_a_run_the_starter_counts_and_stderr_says_so(run, photos, data, starter):
    code, out, err = run("predict", "a.png")
    assert (code, err) == (0, "model starter (ships with crowdcount)\n")
    assert run("predict", "-q", "a.png") == (0, out, "")
    assert run("predict", "a.png", "--checkpoint", "starter") == (0, out, err)
    code, _, err = run("eval")
    assert code == 0
    assert err.startswith("model starter (ships with crowdcount), split val of square\n")
    assert run("eval", "--checkpoint", "starter")[2] == err


def test_the_starter_by_name_counts_where_there_is_a_run(run, data, starter):
    assert run("train", *TINY_RUN)[0] == 0
    image = data.image_path(data.records("val")[0])
    assert "ships with" not in run("predict", image)[2]
    assert "ships with" in run("predict", image, "--checkpoint", "starter")[2]


def test_a_folder_called_starter_is_written_with_its_directory(run, photos, no_starter, checkpoint):
    shutil.copytree(checkpoint, "starter")
    code, out, err = run("predict", "a.png", "--checkpoint", "starter")
    assert (code, out) == (3, b"")
    assert "./starter" in err
    code, _, err = run("predict", "a.png", "--checkpoint", "./starter")
    assert (code, err) == (0, "model starter\n")


def test_quiet_says_nothing_but_errors(run, photos, checkpoint):
    assert run("predict", "-q", "a.png", "--checkpoint", checkpoint)[2] == ""
    assert "broken.jpg" in run("predict", "-q", "broken.jpg", "--checkpoint", checkpoint)[2]


def test_the_log_file_holds_what_stderr_said(run, photos, checkpoint):
    run("predict", "-q", "--log-file", "logs/run.log", "a.png", "--checkpoint", checkpoint)
    assert "model" in Path("logs/run.log").read_text()


def test_an_unknown_device_is_a_usage_error(run, photos, checkpoint):
    code, _, err = run("predict", "a.png", "--device", "warp", "--checkpoint", checkpoint)
    assert code == 2
    assert "device" in err


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_is_what_the_network_computes_with(run, data, photos, checkpoint, precision):
    files = {path: path.read_bytes() for path in checkpoint.iterdir()}
    commands = (
        ("predict", "--json", "a.png", "--checkpoint", checkpoint),
        ("eval", "--json", "--checkpoint", checkpoint),
    )
    for command in commands:
        used = {}  # the last of each convolution: loading folds its weights in float32
        hook = torch.nn.modules.module.register_module_forward_hook(
            lambda module, given, result, used=used: (
                used.update({module: result.dtype}) if isinstance(module, torch.nn.Conv2d) else None
            )
        )
        try:
            code, out, err = run(*command, "--precision", precision)
        finally:
            hook.remove()
        assert (code, set(used.values())) == (0, {PRECISIONS[precision]})
        _, exact_out, exact_err = run(*command)
        told, exact = json.loads(out), json.loads(exact_out)
        assert err == exact_err
        if command[0] == "predict":
            (told,), (exact,) = told, exact
        measured = "count" if command[0] == "predict" else "mae"
        assert told[measured] == pytest.approx(exact[measured], rel=0.02)
        assert {key: type(value) for key, value in told.items()} == {
            key: type(value) for key, value in exact.items()
        }
    assert {path: path.read_bytes() for path in checkpoint.iterdir()} == files


@pytest.mark.parametrize("command", [("predict", "a.png"), ("eval",)])
def test_an_unknown_precision_is_a_usage_error(run, data, photos, checkpoint, command):
    code, out, err = run(*command, "--precision", "fp8", "--checkpoint", checkpoint)
    assert (code, out) == (2, b"")
    assert "precision: unknown precision 'fp8'; choose from: fp32, bf16, fp16" in err


# ---- eval


def test_eval_prints_metrics(run, data, checkpoint):
    code, out, err = run("eval", "--checkpoint", checkpoint)
    assert code == 0
    names = [line.split("\t")[0] for line in out.decode().splitlines()]
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
    assert (code, out) == (0, b"")
    assert "1 images to count, to be listed in each.csv" in err
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
    assert (code, out) == (3, b"")
    assert "train, val, test" in err


# ---- progress


def on_a_terminal(*arguments, **environment):
    """What a command writes to a stderr that is a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "crowdcount", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=theirs, env=os.environ | environment
    )
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # Linux says so when the other side is closed
        while piece := os.read(ours, 65536):
            seen += piece
    os.close(ours)
    assert process.wait() == 0
    return seen


def test_bars_are_drawn_on_a_terminal_unless_forbidden(data):
    assert b"counting windows" in on_a_terminal("bins", "--dry-run", TERM="xterm")
    assert b"counting windows" not in on_a_terminal("bins", "--dry-run", TERM="dumb")
    assert b"counting windows" not in on_a_terminal("bins", "--no-progress", TERM="xterm")


def test_forced_colours_draw_no_bars_in_a_pipe(run, data, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    _, _, err = run("bins", "--dry-run")
    assert "counting windows" not in err
    assert "\x1b[33mwarning" in err
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in run("bins", "--dry-run")[2]


# ---- bins


def test_bins_writes_prints_its_path_and_can_be_read(run, data):
    code, out, err = run("bins")
    assert (code, out) == (0, b"data/square/bins-r8.json\n")
    assert "stands for" in err
    assert run("bins")[0] == 0
    assert run("bins", "--paper")[0] == 2
    assert run("bins", "--paper", "--force")[0] == 0


def test_bins_json_and_dry_run(run, data):
    code, out, _ = run("bins", "--json", "--dry-run", "--block", "16", "--smallest-head", "8")
    table = json.loads(out)
    assert code == 0
    assert (table["block"], len(table["bins"])) == (16, 5)
    assert not (data.folder / "bins-r16.json").exists()


def test_bins_does_each_of_several_sets(run, data):
    shutil.copytree("data/square", "data/other")
    assert run("bins")[1] == b"data/other/bins-r8.json\ndata/square/bins-r8.json\n"


def test_bins_of_several_sets_together_go_to_a_file_or_to_stdout(run, data):
    shutil.copytree("data/square", "data/other")
    before = set(Path("data").glob("*/bins-*"))
    code, out, err = run("bins", "--together")
    assert (code, out) == (2, b"")
    assert "-o FILE" in err
    assert run("bins", "--together", "-o", "joint.json")[:2] == (0, b"joint.json\n")
    joint = json.loads(Path("joint.json").read_text())
    for form in (["--json"], ["-o", "-"]):
        assert json.loads(run("bins", "--together", *form)[1]) == joint
    assert len(joint["sources"]) == 2
    assert set(Path("data").glob("*/bins-*")) == before
    assert run("bins", "-o", "each.json")[0] == 2
    code, out, _ = run("train", "--data", "data", *TINY_RUN, "--bins", "joint.json")
    trained = json.loads((Path(out.decode().strip()) / "config.json").read_text())
    assert code == 0
    assert trained["bins"]["bins"] == joint["bins"]
    assert trained["card"]["settings"]["model"]["bins"] == "joint.json"


def test_bins_follow_a_policy_a_table_or_a_preset_but_one_of_them(run, data):
    Path("mine.toml").write_text("starts = [0, 1, 3]")
    starts = {}
    for chosen in (["--policy", "coarse"], ["--table", "mine.toml"], ["--preset", "sha-r8-t2"]):
        code, out, _ = run("bins", "--json", "--force", *chosen)
        assert code == 0
        starts[chosen[1]] = [row["low"] for row in json.loads(out)["bins"]]
    assert starts == {"coarse": [0, 1, 3], "mine.toml": [0, 1, 3], "sha-r8-t2": [0, 1, 2]}
    assert run("bins", "--policy", "fine", "--preset", "sha-r8-t2")[0] == 2
    assert run("bins", "--preset", "sha-r8-t3")[0] == 2
    assert run("bins", "--policy", "finest")[0] == 2
    assert run("bins", "--table", "none.toml")[0] == 3


def test_bins_take_their_block_side_from_the_preset(run, data):
    _, out, _ = run("bins", "--preset", "qnrf-r16-t8-coarse", "--representatives", "middle")
    assert out == b"data/square/bins-r16.json\n"
    table = json.loads((data.folder / "bins-r16.json").read_text())
    assert [row["value"] for row in table["bins"]] == [0, 1.5, 3.5, 5.5, 7]
    assert run("bins", "--preset", "qnrf-r16-t8-coarse", "--block", "8")[0] == 2


def test_bins_lists_the_published_tables_without_any_data(run, workplace):
    code, out, _ = run("bins", "--list-presets")
    lines = [line.split("\t") for line in out.decode().splitlines()]
    assert code == 0
    assert [line[0] for line in lines] == list(PUBLISHED_BINS)
    assert {len(line) for line in lines} == {5}


def test_bins_draws_a_chart_and_does_not_overwrite_it(run, data):
    code, out, err = run("bins", "--png", "bins.png")
    assert (code, out) == (0, b"data/square/bins-r8.json\n")
    assert "chart bins.png" in err
    with Image.open("bins.png") as chart:
        assert chart.format == "PNG"
    assert run("bins", "--png", "bins.png")[0] == 2
    assert run("bins", "--png", "bins.png", "--force")[0] == 0
    run("bins", "--png", "other.png", "--dry-run")
    assert not Path("other.png").exists()


def test_bins_warns_of_bins_that_hold_almost_nothing(run, data):
    _, _, err = run("bins", "--dry-run", "--block", "16", "--smallest-head", "1")
    assert "warning: square: no window at all in bins" in err
    assert "fewer than 100 blocks" in err
    assert "###" in err


# ---- preprocess


def test_preprocess_writes_below_data_and_prints_the_folder(run, workplace, scenes):
    code, out, err = run("preprocess", scenes)
    assert (code, out) == (0, b"data/square\n")
    assert "held out for validation" in err
    assert "nothing to do" in run("preprocess", scenes)[2]
    assert run("preprocess", scenes, "--block", "16")[0] == 2
    assert run("preprocess", scenes, "--block", "16", "--force")[0] == 0


def test_preprocess_dry_run_writes_nothing(run, workplace, scenes):
    code, out, err = run("preprocess", scenes, "--dry-run")
    assert (code, out) == (0, b"")
    assert "11 images to prepare" in err
    assert not Path("data").exists()


def test_preprocess_says_which_points_look_wrong_and_strict_exits_6(run, workplace):
    Path("own").mkdir()
    Image.new("RGB", (512, 448)).save("own/a.jpg")
    Path("own/heads.json").write_text('{"a.jpg": [[10, 500], [20, 470], [NaN, 1]]}')
    code, out, err = run("preprocess", "own", "--strict")
    assert (code, out) == (6, b"")
    assert re.search("^error: .*not all points can be trusted", err, re.MULTILINE)
    assert not Path("data").exists()
    code, out, err = run("preprocess", "own")
    assert (code, out) == (0, b"data/own\n")
    assert "pass --order yx" in err
    assert "1 head without a finite place, left out, in 1 image: train/a.jpg (1)" in err
    assert run("preprocess", "own", "--order", "yx", "--force")[0] == 0
    assert run("preprocess", "own", "--order", "zx")[0] == 2


def test_preprocess_of_nothing_exits_3(run, workplace):
    Path("empty").mkdir()
    assert run("preprocess", "empty")[0] == 3
    assert run("preprocess", "none")[0] == 3


def test_verify_prints_the_folder_that_is_right_and_writes_nothing(run, data):
    before = {path: path.stat().st_mtime_ns for path in data.folder.rglob("*")}
    code, out, err = run("preprocess", "--verify", "data/square", "--jobs", "2")
    assert (code, out) == (0, b"data/square\n")
    assert "all 11 images are as the manifest says" in err
    assert {path: path.stat().st_mtime_ns for path in data.folder.rglob("*")} == before


def test_verify_lists_what_is_wrong_and_exits_6(run, data):
    (data.folder / "train/points/scene_0001.jpg.npy").write_bytes(b"x")
    code, out, err = run("preprocess", "--verify", "data/square")
    assert (code, out) == (6, b"")
    assert "1 thing is not as the manifest says: train/points/scene_0001.jpg.npy" in err
    assert len(err.splitlines()) == 2
    assert "scene_0001" in run("preprocess", "--verify", "data/square", "-v")[2].splitlines()[0]


@pytest.mark.parametrize(
    "option",
    [["--out", "x"], ["--block", "8"], ["--force"], ["--dry-run"], ["--strict"], ["--seed", "42"]],
)
def test_verify_takes_no_other_setting(run, data, option):
    code, out, err = run("preprocess", "--verify", "data/square", *option)
    assert (code, out) == (2, b"")
    assert f"takes no other setting: leave out {option[0]}" in err


def test_verify_of_what_is_not_prepared_exits_3(run, workplace, scenes):
    assert run("preprocess", "--verify", scenes)[0] == 3


def test_preprocess_takes_a_recipe_of_ones_own(run, workplace):
    root = write_set("qnrf", workplace)
    text = (recipes_folder() / "qnrf.toml").read_text()
    Path("mine.toml").write_text(text)
    assert run("preprocess", root, "--recipe", "mine.toml")[:2] == (0, b"data/mine\n")
    code, _, err = run("preprocess", root, "--recipe", "mine.toml", "--dataset", "qnrf")
    assert code == 2
    assert "--recipe" in err
    Path("mine.toml").write_text(text.replace("images =", "image ="))
    code, _, err = run("preprocess", root, "--recipe", "mine.toml", "--out", "other")
    assert code == 2
    assert err.startswith("error: mine.toml: splits.train.image")


def test_folds_are_asked_for_by_number(run, workplace, checkpoint):
    root = write_set("ucf50", workplace)
    code, out, err = run("preprocess", root)
    assert (code, out) == (0, b"data/ucf50\n")
    assert "5 folds of 10 to 10 images" in err
    code, out, err = run("eval", "--fold", "2", "--json", "--checkpoint", checkpoint)
    assert json.loads(out)["images"] == 10
    assert "may have seen these images" in err
    for fold in ("0", "6"):
        code, _, err = run("eval", "--fold", fold, "--checkpoint", checkpoint)
        assert code == 2
        assert "folds 1 to 5" in err
    assert "# 40 training and 10 validation" in run("train", "--fold", "5", "--dry-run")[1].decode()


def test_a_model_remembers_its_fold(run, workplace):
    run("preprocess", write_set("ucf50", workplace))
    code, out, _ = run("train", *TINY_RUN, "--fold", "3")
    assert code == 0
    card = json.loads((Path(out.decode().strip()) / "config.json").read_text())["card"]
    assert card["provenance"]["fold"] == 3
    assert "may have seen" not in run("eval", "--fold", "3")[2]
    assert "not trained with what preprocess held out" in run("eval")[2]


def test_a_set_without_folds_says_how_to_get_some(run, data, checkpoint):
    code, _, err = run("eval", "--fold", "1", "--checkpoint", checkpoint)
    assert code == 2
    assert "--folds" in err
    assert run("preprocess", data.folder, "--folds", "1")[0] == 2


# ---- datasets


def test_datasets_lists_what_is_known(run):
    code, out, err = run("datasets")
    assert (code, err) == (0, "")
    assert run("datasets", "list")[1] == out
    text = out.decode()
    for name in recipe_names():
        recipe = load_recipe(name)
        assert any(line.split()[:1] == [name] for line in text.splitlines())
        assert recipe.homepage in text
    assert "62,315" in text
    assert "1,500*" in text


def test_datasets_list_for_machines(run):
    code, out, _ = run("datasets", "list", "--json")
    known = {each["name"]: each for each in json.loads(out)}
    assert code == 0
    assert run("datasets", "--json")[1] == out
    assert set(known) == set(recipe_names())
    assert known["sha"]["images"] == {"train": 300, "test": 182}
    assert known["sha"]["heads"] == {"newer": 241_275, "older": 241_677}
    assert known["nwpu"]["unlabelled"] == ["test"]
    assert known["ucf50"]["folds"] == 5


def test_datasets_check_of_an_incomplete_set_exits_6(run, workplace):
    root = write_set("sha", workplace)
    before = sorted(workplace.rglob("*"))
    (root / "train_data/images/IMG_2.jpg").write_bytes(b"<html>404</html>")
    (root / "test_data/ground-truth/GT_IMG_1.mat").unlink()
    before.remove(root / "test_data/ground-truth/GT_IMG_1.mat")
    code, out, err = run("datasets", "check", root)
    assert (code, out) == (6, b"sha\tincomplete\t-\n")
    assert "train: 3 images, 300 expected" in err
    assert "train: 1 images cannot be used" in err
    assert "IMG_2.jpg" in err
    assert "IMG_1.jpg" in err
    assert "Traceback" not in err
    assert sorted(workplace.rglob("*")) == before


def test_datasets_check_of_what_is_whole_exits_0(run, workplace):
    root = write_set("qnrf", workplace)
    text = (recipes_folder() / "qnrf.toml").read_text()
    text = text.replace("1201", "3").replace("334", "2") + "[releases]\nfirst = { total = 38 }\n"
    Path("mine.toml").write_text(text)
    code, out, err = run("datasets", "check", root, "--recipe", "mine.toml")
    assert (code, out) == (0, b"mine\tcomplete\tfirst\n")
    assert "warning" not in err


def test_datasets_check_of_nothing_exits_3(run, workplace):
    Path("empty").mkdir()
    assert run("datasets", "check", "empty")[:2] == (3, b"")
    assert run("datasets", "check", "none")[:2] == (3, b"")


# ---- train


TINY_RUN = (
    *("--backbone", "timm:test_resnet", "--no-pretrained", "--epochs", "1", "--batch-size", "4"),
    *("--set", "train.crop=64", "--set", "train.workers=0", "--set", "model.neck_width=8"),
)


def test_train_prints_its_best_checkpoint_and_becomes_the_latest(run, data):
    code, out, err = run("train", *TINY_RUN)
    assert code == 0
    best = Path(out.decode().strip())
    assert best.name == "best"
    assert (Path("runs/latest/best").resolve()) == best.resolve()
    log = [json.loads(line) for line in (best.parent / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1]
    assert log[0]["val"]["images"] == 1
    assert "epoch 1/1" in err
    # Without a word about models, eval and predict now use this run.
    assert run("eval")[0] == 0
    assert run("predict", data.image_path(data.records("test")[0]))[0] == 0


def test_the_later_of_flag_and_set_wins(run, data):
    _, out, _ = run("train", "--dry-run", "--lr", "0.5", "--set", "optim.lr=0.25", *TINY_RUN)
    assert "lr = 0.25" in out.decode()
    _, out, _ = run("train", "--dry-run", "--set", "optim.lr=0.25", "--lr", "0.5", *TINY_RUN)
    assert "lr = 0.5" in out.decode()
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("flag", "value", "setting"),
    [
        ("--backbone", "timm:resnet18", 'backbone = "timm:resnet18"'),
        ("--weights", "w.pth", 'weights = "w.pth"'),
        ("--block", "16", "block = 16"),
        ("--bins", "sha-r8-t4", 'bins = "sha-r8-t4"'),
        ("--epochs", "7", "epochs = 7"),
        ("--batch-size", "3", "batch_size = 3"),
        ("--seed", "5", "seed = 5"),
        ("--cache", "disk", 'cache = "disk"'),
        ("--lr", "0.125", "lr = 0.125"),
        ("--preset", "demo", "crop = 224"),
    ],
)
def test_every_short_form_sets_its_setting(run, data, flag, value, setting):
    # Of a flag given twice the later wins; the default backbone takes long to describe.
    tiny = ("train", "--dry-run", "--backbone", "timm:test_resnet")
    assert setting not in run(*tiny)[1].decode()
    assert setting in run(*tiny, flag, value)[1].decode()


def test_tensorboard_is_a_flag_that_may_be_given_to_a_run_that_goes_on(run, stopped):
    assert "tensorboard = true" in run("train", "--dry-run", "--tensorboard")[1].decode()
    assert run("train", "--resume", stopped, "--tensorboard")[0] == 0
    assert len(list(stopped.glob("events.out.tfevents.*"))) == 1


def test_misspelt_setting_is_one_line_and_exit_2(run, data):
    assert run("train", "--set", "loss.cuont=mse") == (
        2,
        b"",
        "error: loss.cuont: no such setting; did you mean 'count'?\n",
    )


def test_a_run_folder_is_not_overwritten(run, data):
    assert run("train", *TINY_RUN, "--out", "here")[0] == 0
    assert run("train", *TINY_RUN, "--out", "here")[0] == 2
    assert run("train", *TINY_RUN, "--out", "here", "--force")[0] == 0


def test_train_can_draw_its_first_batch_instead(run, data):
    code, out, _ = run("train", *TINY_RUN, "--show-batch", "batch.png")
    assert (code, out) == (0, b"batch.png\n")
    assert Path("batch.png").read_bytes().startswith(b"\x89PNG")
    assert not Path("runs").exists()
    code, out, err = run("train", *TINY_RUN, "--show-batch", "batch.png")
    assert (code, out) == (2, b"")
    assert "batch.png: there already" in err
    assert run("train", *TINY_RUN, "--show-batch", "batch.png", "--force")[0] == 0


def test_train_dry_run_is_a_run_file_with_sizes_and_writes_nothing(run, data):
    before = set(data.folder.rglob("*"))
    code, out, _ = run("train", *TINY_RUN, "--dry-run", "--set", "train.ema_decay=0.9")
    assert code == 0
    assert set(data.folder.rglob("*")) == before
    assert not Path("runs").exists()
    assert tomllib.loads(out.decode())["train"]["batch_size"] == 4
    sizes = "\n".join(re.findall("^# .*", out.decode(), re.MULTILINE))
    assert "7 training and 1 validation images, crops of 64 pixels" in sizes
    assert re.search(r"# ([\d,]+) parameters, \1 of them trained", sizes)
    assert "# 2 steps an epoch, 2 in all" in sizes
    assert re.search(r"# memory, estimated: \d+ MiB \(weights .*, activations \d+ MiB\)", sizes)


def test_overfit_says_whether_crops_were_learned(run, data):
    start = ("train", *TINY_RUN, "--set", "train.epochs=150")
    code, out, err = run(*start, "--lr", "0.01", "--overfit", "1")
    header, *rows = [line.split("\t") for line in out.decode().splitlines()]
    assert code == 0
    assert header == ["", "before", "after", "at_most"]
    assert [row[0] for row in rows] == ["loss", "count_error"]
    assert all(float(after) <= float(at_most) for _, _, after, at_most in rows)
    assert "crops 1, heads " in err
    code, out, err = run(*start, "--lr", "1e-9", "--epochs", "2", "--overfit", "1")
    assert (code, len(out.splitlines())) == (5, 3)
    assert "error: these crops were not learned: the loss fell from" in err
    assert not Path("runs").exists()
    assert run(*start, "--overfit", "8")[0] == 2
    assert run(*start, "--overfit", "0")[0] == 2


def test_selecting_on_test_images_takes_a_flag_and_is_told_ever_after(run, data):
    for more in ([], ["--dry-run"]):
        code, out, err = run("train", *TINY_RUN, "--select-on", "test", *more)
        assert (code, out) == (2, b"")
        assert "--allow-test-selection" in err
    assert not Path("runs").exists()
    start = ("train", *TINY_RUN, "--out", "runs/run")
    assert run(*start, "--select-on", "test", "--allow-test-selection")[0] == 0
    code, out, err = run("eval", "--split", "test")
    assert code == 0
    assert out.decode().splitlines()[-1] == "selected_on\ttest"
    assert "was selected on test images" in err
    assert json.loads(run("eval", "--split", "test", "--json")[1])["selected_on"] == "test"
    assert "was selected on test images" not in run("eval")[2]
    assert run("runs")[1].decode().splitlines()[1].endswith("\ttest")
    code, _, err = run("train", "--resume", "runs/run", "--allow-test-selection")
    assert code == 2
    assert "is for a new run" in err
    assert run("train", *TINY_RUN)[0] == 0
    assert b"selected_on" not in run("eval", "--split", "test")[1]


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


def test_several_sets_are_named_when_none_is_chosen_and_trained_on_when_chosen(run, data):
    shutil.copytree("data/square", "data/other")
    code, _, err = run("train", *TINY_RUN)
    assert code == 2
    assert "data/other, data/square" in err
    code, out, _ = run("train", *TINY_RUN, "--data", "data/other", "--data", "data/square")
    assert code == 0
    card = json.loads((Path(out.decode().strip()) / "config.json").read_text())["card"]
    assert card["provenance"]["training_images"] == 14


def test_weights_that_cannot_be_downloaded_say_what_to_do_and_leave_no_run(run, data):
    code, out, err = run("train", "--backbone", "timm:resnet18", "--offline")
    assert (code, out) == (3, b"")
    assert "--weights" in err
    assert "--no-pretrained" in err
    assert not Path("runs").exists()


def test_same_seed_same_weights(run, data):
    files = []
    for out in ("one", "two"):
        assert run("train", *TINY_RUN, "--out", out)[0] == 0
        files.append(Path(out, "last", "model.safetensors").read_bytes())
    assert files[0] == files[1]
    assert run("train", *TINY_RUN, "--seed", "1", "--out", "three")[0] == 0
    assert Path("three", "last", "model.safetensors").read_bytes() != files[0]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_saves_the_last_checkpoint(data, name, code):
    # To the whole group, as terminals and timeout send it: workers must not hear it.
    endless = [*TINY_RUN, "--set", "train.workers=1", "--epochs", "100000", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "crowdcount", "train", *endless],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stderr:
        if line.startswith("epoch 2/"):
            break
    import signal

    os.killpg(process.pid, getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert Path(out.strip(), "model.safetensors").is_file()
    assert Path("run/last/config.json").is_file()
    assert Path("run/state.pt").is_file()
    assert err.endswith("go on with: crowdcount train --resume run\n")


@pytest.fixture
def stopped(data):
    """A run of two epochs that was stopped after its first step."""
    steps = []
    settings = load_run_config(
        overrides=[
            *(("model.backbone", "timm:test_resnet"), ("model.pretrained", "none")),
            *(("train.epochs", 2), ("train.batch_size", 4), ("train.crop", 64)),
            *(("train.workers", 0), ("model.neck_width", 8)),
        ]
    )
    return train(
        settings, [data], out=Path("runs/begun"), device="cpu", should_stop=lambda: not steps
    ).run


def test_resume_goes_on_and_a_finished_run_says_so(run, stopped):
    # A file of settings for new runs is none of a run that was begun.
    Path("crowdcount.toml").write_text("[train]\nepochs = 7\n")
    code, out, err = run("train", "--resume", "auto")
    assert (code, out) == (0, b"runs/begun/best\n")
    assert "going on with runs/begun at epoch 1, step 2" in err
    assert "epoch 2/2" in err
    code, out, err = run("train", "--resume", "runs/begun")
    assert (code, out) == (0, b"runs/begun/best\n")
    assert err == "runs/begun is finished; there is nothing to go on with\n"


def test_resume_refuses_other_settings_by_name(run, stopped, monkeypatch):
    code, out, err = run("train", "--resume", stopped, "--lr", "0.5", "--epochs", "2")
    assert (code, out) == (2, b"")
    assert "optim.lr: was 0.0001, now 0.5\n" in err
    assert "epochs" not in err
    monkeypatch.setenv("CROWDCOUNT_TRAIN__SEED", "5")
    assert "train.seed: was 42, now 5\n" in run("train", "--resume", stopped)[2]


@pytest.mark.parametrize("flag", [("--out", "x"), ("--force",), ("--deterministic",)])
def test_resume_refuses_what_is_for_a_new_run(run, stopped, flag):
    code, _, err = run("train", "--resume", stopped, *flag)
    assert code == 2
    assert f"{flag[0]} is for a new run" in err


def test_resume_without_a_run_exits_3(run, data):
    assert run("train", "--resume", "auto")[0] == 3
    assert run("train", "--resume", "nowhere")[0] == 3


def test_resume_dry_run_shows_the_settings_of_the_run(run, stopped):
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    code, out, _ = run("train", "--resume", stopped, "--dry-run")
    assert code == 0
    assert "epochs = 2" in out.decode()
    assert {path: path.stat().st_mtime_ns for path in stopped.rglob("*")} == before
    assert run("train", "--resume", stopped, "--dry-run", "--lr", "0.5")[0] == 2


def test_deterministic_is_kept_with_the_run(run, data):
    assert run("train", *TINY_RUN, "--out", "run", "--deterministic")[0] == 0
    assert json.loads(Path("run/run.json").read_text())["deterministic"]


def test_divergence_exits_7_and_leaves_what_reproduces_it(run, data):
    code, out, err = run("train", *TINY_RUN, "--lr", "1e30")
    assert (code, out) == (7, b"")
    assert "training diverged at step 2 (epoch 1)" in err
    assert "/diverged.pt reproduces the step" in err
    assert Path("runs/latest/diverged.pt").is_file()
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    with pytest.raises(DivergedError, match="what the network predicts is not finite"):
        exec(compile(written, "docs/training.md", "exec"), {})


def test_a_divergence_that_shows_in_validation_exits_7(run, data):
    # One step an epoch; the first breaks the weights, after its loss was found finite.
    steep = ("--lr", "1e30", "--batch-size", "8", "--epochs", "2")
    code, out, err = run("train", *TINY_RUN, *steep)
    assert (code, out) == (7, b"")
    assert "training diverged in epoch 1: " in err
    assert "gives nan heads" in err


def test_runs_are_listed_and_compared(run, data):
    assert run("runs")[0] == 3
    for lr in ("0.1", "0.01"):
        assert run("train", *TINY_RUN, "--lr", lr, "--out", f"runs/tab\t{lr}")[0] == 0
    code, out, err = run("runs")
    header, *rows = [line.split("\t") for line in out.decode().splitlines()]
    assert (code, err) == (0, "")
    assert header[:4] == ["run", "started", "data", "backbone"]
    assert [row[0] for row in rows] == ["tab\\t0.1", "tab\\t0.01"]
    assert [row[2:6] for row in rows] == [["square", "timm:test_resnet", "1/1", "finished"]] * 2
    listed = json.loads(run("runs", "list", "--json", "--runs", "runs")[1])
    assert [f"{each['best_mae']:.6g}" for each in listed] == [row[6] for row in rows]

    names = [each["name"] for each in listed]
    code, out, _ = run("runs", "compare", names[0], f"runs/{names[1]}")
    header, *rows = [line.split("\t") for line in out.decode().splitlines()]
    assert code == 0
    assert header == ["", "tab\\t0.1", "tab\\t0.01"]
    assert rows[0] == ["optim.lr", "0.1", "0.01"]
    assert rows[1][0] == "mae"
    compared = json.loads(run("runs", "compare", *names, "--json")[1])
    assert compared["runs"] == names
    assert compared["metrics"]["mae"] == [each["best_mae"] for each in listed]

    assert run("runs", "compare", names[0])[0] == 2
    assert run("runs", "compare", names[0], "none")[0] == 3
    (Path("runs") / names[0] / "log.jsonl").write_text("<html>\n")
    code, out, err = run("runs")
    assert (code, len(out.splitlines())) == (4, 2)
    assert "not the log of a run" in err


def test_train_starts_from_a_checkpoint(run, data, starter):
    size = ("--set", "train.crop=64", "--set", "train.workers=0", "--epochs", "1")
    tuned = ("train", *size, "--batch-size", "4", "--init", "starter")
    code, out, _ = run(*tuned, "--dry-run")
    told = tomllib.loads(out.decode())
    assert code == 0
    assert told["train"]["init"] == "starter"
    assert told["model"]["backbone"] == "timm:test_resnet"
    assert told["model"]["neck_width"] == 8
    assert run(*tuned, "--show-batch", "batch.png")[:2] == (0, b"batch.png\n")
    code, out, _ = run(*tuned, "--overfit", "1")
    assert (code, len(out.splitlines())) == (5, 3)
    assert not list(data.folder.glob("bins-*"))
    code, out, _ = run(*tuned)
    assert code == 0
    card = json.loads((Path(out.decode().strip()) / "config.json").read_text())["card"]
    assert card["provenance"]["init"]["name"] == "tiny"
    code, out, err = run(*tuned, "--backbone", "clip-rn50")
    assert (code, out) == (2, b"")
    assert "model.backbone: 'clip-rn50', but train.init, 'starter', was made with 'timm:" in err
    assert run(*tuned, "--no-pretrained")[0] == 2
    code, _, err = run("train", "--resume", "runs/latest", "--init", "./other")
    assert code == 2
    assert "train.init: was 'starter', now './other'" in err


# ---- models


CARD = """
title = "Ours"
licence = "MIT"
[[data]]
name = "square"
terms = "our own"
"""


def test_models_are_packed_and_shown(run, data):
    assert run("train", *TINY_RUN)[0] == 0
    Path("card.toml").write_text(CARD)
    start = ("models", "pack", "runs/latest", "-o", "ours", "--card", "card.toml", "--half")
    code, out, err = run(*start, "--dry-run")
    assert (code, out) == (0, b"")
    assert "ours" in err
    assert not Path("ours").exists()
    assert run(*start)[:2] == (0, b"ours\n")
    assert run(*start)[:2] == (2, b"")
    assert run(*start, "--dry-run")[0] == 2
    assert run(*start, "--force")[:2] == (0, b"ours\n")
    code, out, err = run("models", "show", "ours")
    assert (code, err) == (0, "")
    name = Path("runs/latest").resolve().name
    assert out.decode().startswith(f"{name}: Ours\n")
    assert "square: our own\n" in out.decode()
    assert "float16" in out.decode()
    told = json.loads(run("models", "show", "ours", "--json")[1])
    assert told["licence"] == "MIT"
    assert told["speed"] is None
    image = data.image_path(data.records("val")[0])
    assert run("predict", image, "--checkpoint", "ours")[0] == 0


def test_models_show_a_run_and_the_starter(run, data, starter):
    told = json.loads(run("models", "show", "starter", "--json")[1])
    assert told["folder"] == str(starter)
    assert run("train", *TINY_RUN)[0] == 0
    told = json.loads(run("models", "show", "runs/latest", "--json")[1])
    assert told["folder"] == "runs/latest/best"


def test_models_say_what_is_missing_or_wrong(run, workplace, no_starter, checkpoint):
    assert run("models", "show", "starter")[0] == 3
    assert run("models", "show", "nowhere")[0] == 3
    Path("card.toml").write_text(CARD + "colour = 1\n")
    pack = ("models", "pack", checkpoint, "-o", "ours")
    code, out, err = run(*pack, "--card", "card.toml")
    assert (code, out) == (2, b"")
    assert "card.toml: no text of a card: data.0.colour" in err
    assert run(*pack, "--card", "none.toml")[0] == 3
    assert not Path("ours").exists()


def test_a_closed_pipe_ends_quietly(photos, checkpoint):
    command = f"{sys.executable} -m crowdcount predict -q a.png tiny.png a.png tiny.png"
    result = subprocess.run(
        ["bash", "-c", f"{command} --checkpoint {checkpoint} | head -c 1"],
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in result.stderr
    assert "Broken" not in result.stderr
