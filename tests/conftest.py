"""What tests share: the Hypothesis profile, a clean environment, small data and a small model."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from crowdcount.cli import main
from crowdcount.core.bins import Bins
from crowdcount.core.image import WorkingSize
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.models.build import build_model
from crowdcount.models.checkpoints import names
from crowdcount.models.checkpoints.card import Card, Provenance
from crowdcount.models.checkpoints.format import save_checkpoint
from crowdcount.models.config import ModelConfig
from crowdcount.runs.log import Line
from crowdcount.scenes.scene import SceneSettings, write_scenes
from crowdcount.workflows.preprocess import preprocess
from crowdcount.workflows.train import train
from tests.tiny_run import TIMES, TINY, tiny_config

# Torch's first call takes longer than Hypothesis allows an example by default.
settings.register_profile("crowdcount", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("crowdcount")

# One for each process that pytest-xdist starts, and for the commands that tests start: threads that
# wait for each other beside other work take several times as long, and networks here are tiny.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

LONG = (
    *("test_importing.py", "test_contract.py", "test_resume.py", "test_train.py", "test_demo.py"),
    *("test_mutated_inputs.py", "test_preprocess.py", "test_negatives.py", "test_tuning.py"),
    *("test_backbones.py", "test_datasets.py", "test_published.py", "test_bins.py"),
)
SCENES = SceneSettings(width=448, height=448, max_heads=40)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no process waits for the last of another."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting of the person who runs the tests must not change their outcome."""
    for name in os.environ:
        if name.startswith("CROWDCOUNT_") and name != "CROWDCOUNT_TEST_DATA":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _curves_are_text() -> Iterator[None]:
    """Drawing curves takes longer than a tiny run: keep what is drawn, as text.

    ``tests/runs/test_log.py`` draws them, as do the processes of ``tests/runs/test_resume.py``.
    """

    def write_curves(log: Sequence[Line], *, title: str, split: str) -> bytes:
        lines = [{key: line[key] for key in line if key not in TIMES} for line in log]
        return b"\x89PNG of " + repr((title, split, lines)).encode()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crowdcount.runs.folder.draw_curves", write_curves)
        yield


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_drawn_without_storage() -> Iterator[None]:
    """Random weights of a model on the meta device take longer than all else of it, for nothing."""

    def drawing(draw: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda tensor, *of, **how: tensor if tensor.is_meta else draw(tensor, *of, **how)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("uniform_", "normal_"):
            patch.setattr(torch.Tensor, name, drawing(getattr(torch.Tensor, name)))
        yield


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered scenes: eight to train on, three to test on, each part with its table of points."""
    folder = tmp_path_factory.mktemp("source") / "square"
    write_scenes(folder / "train", images=8, seed=1, settings=SCENES)
    write_scenes(folder / "test", images=3, seed=2, settings=SCENES)
    return folder


@pytest.fixture(scope="session")
def prepared(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreparedDataset]:
    """The scenes, prepared; tests must not write into it, which is checked at the end."""
    (result,) = preprocess(scenes, out=tmp_path_factory.mktemp("data") / "square")
    files = set(result.folder.rglob("*"))
    yield PreparedDataset.open(result.folder)
    assert set(result.folder.rglob("*")) == files


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that was never trained."""
    torch.manual_seed(0)
    bins = Bins(block=8, starts=(0, 1, 2), values=(0.0, 1.0, 2.5))
    model = build_model(ModelConfig(backbone=TINY, pretrained="none", neck_width=8), bins)
    size = WorkingSize(short_side_min=64, long_side_max=512)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    card = Card(name="tiny", working_size=size, provenance=Provenance(mean_heads=10.0))
    save_checkpoint(folder, model, card=card)
    return folder


@pytest.fixture(scope="session")
def tiny_run(prepared: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training run of one epoch; tests must not write into it."""
    data = shutil.copytree(prepared.folder, tmp_path_factory.mktemp("trained") / "square")
    out = data.parent / "runs" / "tiny"
    return train(tiny_config(), [PreparedDataset.open(data)], out=out, device="cpu").run


@pytest.fixture
def trained(tiny_run: Path, workplace: Path) -> Path:
    """A copy of that run, the latest one of an empty working directory."""
    shutil.copytree(tiny_run, "runs/tiny")
    Path("runs/latest").symlink_to("tiny")
    return Path("runs/tiny")


@pytest.fixture
def starter(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the model that ships with the package, whether this version has one or not."""
    folder = tmp_path / "package" / "starter"
    shutil.copytree(checkpoint, folder)
    monkeypatch.setattr(names, "starter_folder", lambda: folder)
    return folder


@pytest.fixture
def no_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that ships no model."""
    monkeypatch.setattr(names, "starter_folder", lambda: tmp_path / "package" / "starter")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "work place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def data(prepared: PreparedDataset, workplace: Path) -> PreparedDataset:
    """A copy of the prepared scenes in ``data/square`` of an empty working directory."""
    shutil.copytree(prepared.folder, workplace / "data" / "square")
    return PreparedDataset.open(workplace / "data" / "square")


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; returns its exit code, stdout and stderr.

    Bytes of stdout that are not UTF-8 are escaped as in the names of files (``os.fsencode``).
    """

    def run_command(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["crowdcount", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfdbinary.readouterr()
        return code, os.fsdecode(out), err.decode()

    return run_command
