"""`crowdcount models` in a shell: listing, packing and showing."""

import json
from pathlib import Path

CARD = """
title = "Ours"
licence = "MIT"
[[data]]
name = "square"
terms = "our own"
"""


def test_models_are_packed_and_shown(run, data, trained):
    Path("card.toml").write_text(CARD)
    start = ("models", "pack", "runs/latest", "-o", "ours", "--card", "card.toml", "--half")
    code, out, err = run(*start, "--dry-run")
    assert (code, out) == (0, "")
    assert "ours" in err
    assert not Path("ours").exists()
    assert run(*start)[:2] == (0, "ours\n")
    assert run(*start)[:2] == (2, "")
    assert run(*start, "--dry-run")[0] == 2
    assert run(*start, "--force")[:2] == (0, "ours\n")
    code, out, err = run("models", "show", "ours")
    assert (code, err) == (0, "")
    name = Path("runs/latest").resolve().name
    assert out.startswith(f"{name}: Ours\n")
    assert "square: our own\n" in out
    assert "float16" in out
    told = json.loads(run("models", "show", "ours", "--json")[1])
    assert told["licence"] == "MIT"
    assert told["speed"] is None
    image = data.image_path(data.records("val")[0])
    assert run("predict", image, "--checkpoint", "ours")[0] == 0


def test_models_show_a_run_and_the_starter(run, starter, trained):
    told = json.loads(run("models", "show", "starter", "--json")[1])
    assert told["folder"] == str(starter)
    told = json.loads(run("models", "show", "runs/latest", "--json")[1])
    assert told["folder"] == "runs/latest/best"


def test_backbones_and_checkpoints_are_listed_under_headers(run, workplace, starter):
    code, out, _ = run("models")
    assert code == 0
    backbones, checkpoints = (
        [line.split("\t") for line in table.splitlines()] for table in out.split("\n\n")
    )
    assert backbones[0][:3] == ["backbone", "parameters_m", "trained_m"]
    assert checkpoints[0][:3] == ["checkpoint", "folder", "backbone"]
    assert checkpoints[1][:2] == ["starter", str(starter)]
    for table in backbones, checkpoints:
        assert {len(row) for row in table} == {len(table[0])}


def test_models_say_what_is_missing_or_wrong(run, workplace, no_starter, checkpoint):
    assert run("models", "show", "starter")[0] == 3
    assert run("models", "show", "nowhere")[0] == 3
    Path("card.toml").write_text(CARD + "colour = 1\n")
    pack = ("models", "pack", checkpoint, "-o", "ours")
    code, out, err = run(*pack, "--card", "card.toml")
    assert (code, out) == (2, "")
    assert "card.toml: no text of a card: data.0.colour" in err
    assert run(*pack, "--card", "none.toml")[0] == 3
    assert not Path("ours").exists()
