"""The demo: all steps of the toolkit on rendered scenes, in one folder."""

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from crowdcount.config import load_run_config
from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.errors import UsageError
from crowdcount.files import write_text
from crowdcount.runs.folder import is_locked
from crowdcount.scenes.scene import SceneSettings, write_scenes
from crowdcount.workflows.bins import BinsTable, make_bins, warn_of_scarce_bins, write_bins
from crowdcount.workflows.counter import load
from crowdcount.workflows.evaluate import Evaluation, evaluate
from crowdcount.workflows.predict import heatmap_paths, save_heatmap
from crowdcount.workflows.preprocess import preprocess
from crowdcount.workflows.train import Watcher, train

log = logging.getLogger("crowdcount")

MARK = ".crowdcount-demo"
RUN = "run"
TRAINING_SCENES = 120
UNSEEN_SCENES = 40
SCENES = SceneSettings(width=576, height=448)
SEED = 7


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """Results of the demo."""

    data: str
    bins: BinsTable
    evaluation: Evaluation
    """Evaluation on scenes that were not trained on."""

    example: Path
    example_heads: int
    example_count: float
    heatmap: Path
    seconds: float


def plan_demo(folder: Path) -> str:
    """Describe in one line what a demo in ``folder`` does.

    Raises:
        UsageError: If ``folder`` holds something that is not an earlier demo.
    """
    _refuse_other(folder)
    epochs = load_run_config(preset="demo").train.epochs
    scenes = TRAINING_SCENES + UNSEEN_SCENES
    return f"{scenes} scenes to render and {epochs} epochs to train in {folder}, made anew"


def run_demo(
    folder: Path,
    *,
    device: str = "auto",
    watcher: Watcher | None = None,
    track: Track = untracked,
) -> DemoResult:
    """Render scenes, prepare them, fit bins, train, evaluate, and draw one heatmap.

    Calls the functions behind the commands. Touches nothing outside ``folder``, so the demo does
    not become the latest run or a default data set.

    Raises:
        UsageError: If ``folder`` holds something that is not an earlier demo.
    """
    started = time.perf_counter()
    _refuse_other(folder)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_text(folder / MARK, "Made by crowdcount demo, and replaced by the next.\n")
    scenes = folder / "scenes"
    log.info("rendering %d scenes", TRAINING_SCENES + UNSEEN_SCENES)
    write_scenes(scenes / "train", images=TRAINING_SCENES, seed=SEED, settings=SCENES, track=track)
    write_scenes(scenes / "test", images=UNSEEN_SCENES, seed=SEED + 1, settings=SCENES, track=track)
    prepared = preprocess(scenes, out=folder / "data", track=track)[0]
    data = PreparedDataset.open(prepared.folder)
    config = load_run_config(preset="demo")
    bins = make_bins([data], block=config.model.block, track=track)
    write_bins(data, bins)
    warn_of_scarce_bins(bins)
    trained = train(
        config,
        [data],
        out=folder / RUN,
        device=device,
        watcher=watcher,
        track=track,
        latest=False,
    )
    counter = load(trained.checkpoint, device=device)
    evaluation = evaluate(counter, [data], split="test", track=track)
    fullest = max(evaluation.results, key=lambda result: result.heads)
    example = data.image_path(next(r for r in data.records("test") if r.name == fullest.name))
    (heatmap,) = heatmap_paths([example], folder=folder / "heatmaps")
    save_heatmap(counter.count(example), heatmap)
    return DemoResult(
        data=data.name,
        bins=bins,
        evaluation=evaluation,
        example=example,
        example_heads=fullest.heads,
        example_count=fullest.predicted,
        heatmap=heatmap,
        seconds=time.perf_counter() - started,
    )


def _refuse_other(folder: Path) -> None:
    """Refuse a folder with other content than an earlier demo, or with a running one."""
    taken = folder.is_file() or (folder.exists() and any(folder.iterdir()))
    if taken and not (folder / MARK).is_file():
        raise UsageError(
            f"{folder}: already exists and is not an earlier demo",
            next_step="name another folder: crowdcount demo --out FOLDER",
        )
    if is_locked(folder / RUN):
        raise UsageError(f"{folder}: another process runs this demo", next_step="wait for it")
