"""`crowdcount bins` in a shell: files, tables, charts, exit codes."""

import json
import shutil
from pathlib import Path

from PIL import Image

from crowdcount.core.published_bins import PUBLISHED_BINS
from tests.tiny_run import TINY_RUN


def test_bins_writes_prints_its_path_and_can_be_read(run, data):
    code, out, err = run("bins")
    assert (code, out) == (0, "data/square/bins-r8.json\n")
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
    assert run("bins")[1] == "data/other/bins-r8.json\ndata/square/bins-r8.json\n"


def test_bins_of_several_sets_together_go_to_a_file_or_to_stdout(run, data):
    shutil.copytree("data/square", "data/other")
    before = set(Path("data").glob("*/bins-*"))
    code, out, err = run("bins", "--together")
    assert (code, out) == (2, "")
    assert "-o FILE" in err
    assert run("bins", "--together", "-o", "joint.json")[:2] == (0, "joint.json\n")
    joint = json.loads(Path("joint.json").read_text())
    for form in (["--json"], ["-o", "-"]):
        assert json.loads(run("bins", "--together", *form)[1]) == joint
    assert len(joint["sources"]) == 2
    assert set(Path("data").glob("*/bins-*")) == before
    assert run("bins", "-o", "each.json")[0] == 2
    code, out, _ = run("train", "--data", "data", *TINY_RUN, "--bins", "joint.json")
    trained = json.loads((Path(out.strip()) / "config.json").read_text())
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
    assert out == "data/square/bins-r16.json\n"
    table = json.loads((data.folder / "bins-r16.json").read_text())
    assert [row["value"] for row in table["bins"]] == [0, 1.5, 3.5, 5.5, 7]
    assert run("bins", "--preset", "qnrf-r16-t8-coarse", "--block", "8")[0] == 2


def test_bins_lists_the_published_tables_without_any_data(run, workplace):
    code, out, _ = run("bins", "--list-presets")
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert [line[0] for line in lines] == list(PUBLISHED_BINS)
    assert {len(line) for line in lines} == {5}


def test_bins_draws_a_chart_and_does_not_overwrite_it(run, data):
    code, out, err = run("bins", "--png", "bins.png")
    assert (code, out) == (0, "data/square/bins-r8.json\n")
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
