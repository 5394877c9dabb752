"""Both decoders take the same steps, and stand in one table."""

import shutil
import sys

from benchmarks import decoders
from crowdcount.core.metrics import count_metrics
from crowdcount.workflows.plan import plan_training
from tests.models.small_backbones import shrunken


def test_both_decoders_take_the_same_steps(prepared, tmp_path, monkeypatch, capsys):
    configs = []
    data = shutil.copytree(prepared.folder, tmp_path / "square")  # training leaves its bins there
    monkeypatch.chdir(tmp_path)
    arguments = ["--data", data, "--steps", 2, "--crop", 64, "--batch", 2, "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["decoders.py", *map(str, arguments)])
    train = decoders.train
    monkeypatch.setattr(decoders, "train", lambda *a, **k: configs.append(a[0]) or train(*a, **k))
    with shrunken():
        decoders.main()
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
