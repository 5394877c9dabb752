"""A state file holds everything that changes, whole or not at all, and runs no code."""

import copy
import pickle
from pathlib import Path

import pytest
import torch

from crowdcount.errors import BadInputError
from crowdcount.training import state
from crowdcount.training.optimiser import OptimConfig
from crowdcount.training.state import load_state, save_state
from tests.toy_training import ConvModel, FewBatches, learner, run

OPTIM = OptimConfig(name="adamw", lr=0.01)
SETTINGS = {"epochs": 1, "ema_decay": 0.5, "precision": "fp16"}


@pytest.fixture
def trained():
    learning = learner(ConvModel(), optim=OPTIM, **SETTINGS)
    run(learning, FewBatches(3), optim=OPTIM, **SETTINGS)
    return learning


def equal(one, other):
    """Whether two trees of plain values and tensors hold the same."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def test_everything_comes_back(trained, tmp_path):
    before = copy.deepcopy(trained.state_dict())
    save_state(tmp_path / "state.pt", trained, run={"best": {"mae": 3.5}, "log_bytes": 17})
    torch.manual_seed(123)
    found = load_state(tmp_path / "state.pt")
    assert found.run == {"best": {"mae": 3.5}, "log_bytes": 17}
    other = learner(ConvModel(), optim=OPTIM, **SETTINGS)
    assert not equal(other.state_dict(), before)
    other.load_state_dict(found.learner)
    assert equal(other.state_dict(), before)
    assert other.progress == trained.progress


def test_a_state_that_cannot_be_written_leaves_the_previous_one(trained, tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    save_state(path, trained, run={"number": 1})

    def half(content, stream):
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save_state(path, trained, run={"number": 2})
    assert load_state(path).run == {"number": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["state.pt"]


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_code_in_a_file_is_not_run(workplace):
    for number, save in enumerate((torch.save, lambda it, to: to.write_bytes(pickle.dumps(it)))):
        path = Path(f"{number}.pt")
        save({"format": state.FORMAT, "learner": Malicious(), "run": {}}, path)
        with pytest.raises(BadInputError, match=r"not a training state"):
            load_state(path)
    assert not Path("ran").exists()


@pytest.mark.parametrize("damage", [b"", b"PK", b"<html>404</html>"])
def test_a_file_without_a_state_is_refused(damage, tmp_path):
    (tmp_path / "state.pt").write_bytes(damage)
    with pytest.raises(BadInputError, match=r"state\.pt: not a training state"):
        load_state(tmp_path / "state.pt")


def test_a_cut_file_is_refused(trained, tmp_path):
    path = tmp_path / "state.pt"
    save_state(path, trained, run={})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadInputError, match=r"not a training state"):
        load_state(path)


def test_another_format_is_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(state, "FORMAT", 99)
    save_state(tmp_path / "state.pt", trained, run={})
    monkeypatch.undo()
    with pytest.raises(BadInputError, match="format 99"):
        load_state(tmp_path / "state.pt")
