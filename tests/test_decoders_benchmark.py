"""benchmarks/decoders.py: both decoders take the same steps, and stand in one table."""

import importlib.util
import shutil
import sys
from pathlib import Path

from crowdcount.core.metrics import count_metrics
from crowdcount.workflows.train import plan_training
from tests.models.shrunken import shrunken

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "decoders.py"


def test_both_decoders_take_the_same_steps(prepared, tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("benchmark_decoders", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    configs = []
    data = shutil.copytree(prepared.folder, tmp_path / "square")  # training leaves its bins there
    monkeypatch.chdir(tmp_path)
    arguments = ["--data", data, "--steps", 2, "--crop", 64, "--batch", 2, "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["decoders.py", *map(str, arguments)])
    train = script.train
    monkeypatch.setattr(script, "train", lambda *a, **k: configs.append(a[0]) or train(*a, **k))
    with shrunken():
        script.main()
    header, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()
    )
    assert {len(row) for row in rows} == {len(header)}
    assert [row[0] for row in rows] == ["paper", "slim", "always the training mean"]
    assert [row[2] for row in rows] == ["2", "2", ""]
    assert float(rows[0][1]) > float(rows[1][1])
    true = [float(record.heads) for record in prepared.records("val")]
    guess = count_metrics([plan_training(configs[0], [prepared]).mean_heads] * len(true), true)
    assert rows[2][4:] == [f"{guess.mae:.1f}", f"{guess.rmse:.1f}"]
    one, other = (config.to_mapping() for config in configs)
    assert (one["model"].pop("decoder"), other["model"].pop("decoder")) == ("paper", "slim")
    assert one == other
    assert (one["model"]["backbone"], one["model"]["pretrained"]) == ("clip-rn50", "none")
    assert not (tmp_path / "runs").exists()
