"""What a command means when it is not told, in the order that CLI.md gives."""

from pathlib import Path

from crowdcount.workflows.locate import (
    mark_latest,
    new_run_folder,
)


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_latest_moves_on_and_is_relative(tmp_path):
    checkpoint(tmp_path / "runs/one/best")
    two = checkpoint(tmp_path / "runs/two/best")
    mark_latest(tmp_path / "runs/one")
    mark_latest(tmp_path / "runs/two")
    assert (tmp_path / "runs/latest").resolve() == two.parent.resolve()
    assert (tmp_path / "runs/latest").readlink() == Path("two")


def test_a_new_run_never_takes_an_old_name(tmp_path):
    names = []
    for _ in range(3):
        folder = new_run_folder("sha-x", date="2026-01-31", runs=tmp_path)
        folder.mkdir()
        names.append(folder.name)
    assert names == ["2026-01-31-sha-x", "2026-01-31-sha-x-2", "2026-01-31-sha-x-3"]
