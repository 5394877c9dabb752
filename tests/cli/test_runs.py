"""`crowdcount runs` in a shell: lists and comparisons."""

import json
from pathlib import Path

from tests.tiny_run import TINY_RUN


def test_runs_are_listed_and_compared(run, data):
    assert run("runs")[0] == 3
    for lr in ("0.1", "0.01"):
        assert run("train", *TINY_RUN, "--lr", lr, "--out", f"runs/tab\t{lr}")[0] == 0
    code, out, err = run("runs")
    header, *rows = [line.split("\t") for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert header[:4] == ["run", "started", "data", "backbone"]
    assert [row[0] for row in rows] == ["tab\\t0.1", "tab\\t0.01"]
    assert [row[2:6] for row in rows] == [["square", "timm:test_resnet", "1/1", "finished"]] * 2
    listed = json.loads(run("runs", "list", "--json", "--runs", "runs")[1])
    assert [f"{each['best_mae']:.6g}" for each in listed] == [row[6] for row in rows]

    names = [each["name"] for each in listed]
    code, out, _ = run("runs", "compare", names[0], f"runs/{names[1]}")
    header, *rows = [line.split("\t") for line in out.splitlines()]
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
    assert "not part of a run's log" in err
