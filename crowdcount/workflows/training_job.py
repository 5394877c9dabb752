"""The job of ``crowdcount train``: settings and data of a new run, or of one to resume."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crowdcount.config import RunConfig, given_settings
from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.find import open_prepared
from crowdcount.runs.folder import RunFolder, find_run
from crowdcount.runs.resume import check_settings, data_of_run
from crowdcount.workflows.plan import RunEstimate, estimate_run, new_run_config
from crowdcount.workflows.train import TrainResult, Watcher, check_selection, resume, train


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Settings and data of a run."""

    config: RunConfig

    data: Sequence[PreparedDataset] | None
    """None: the data with which ``run`` was begun."""

    run: RunFolder | None
    """The run to resume; None: a new one."""

    def estimate(self, *, track: Track = untracked) -> RunEstimate:
        """Estimate the steps and the memory of the run.

        Raises:
            UsageError: If settings or data are not those of the run to resume.
        """
        if self.run is None:
            return estimate_run(self.config, self.data or (), track=track)
        check_settings(self.run, self.config)
        data = data_of_run(self.run, self.data)
        return estimate_run(self.config, data, bins=self.run.record.bins, track=track)

    def carry_out(
        self,
        *,
        out: Path | None,
        device: str | None,
        offline: bool,
        force: bool,
        deterministic: bool,
        allow_test_selection: bool,
        should_stop: Callable[[], bool],
        watcher: Watcher,
        track: Track,
    ) -> TrainResult:
        """Train a new run, or resume; see :func:`train` and :func:`resume`.

        ``device=None``: that of the run to resume, else ``auto``.
        """
        if self.run is not None:
            return resume(
                self.run,
                self.config,
                data=self.data,
                device=device,
                offline=offline,
                should_stop=should_stop,
                watcher=watcher,
            )
        return train(
            self.config,
            self.data or (),
            out=out,
            device=device or "auto",
            offline=offline,
            force=force,
            deterministic=deterministic,
            allow_test_selection=allow_test_selection,
            should_stop=should_stop,
            watcher=watcher,
            track=track,
        )


def training_job(
    folders: Sequence[Path],
    *,
    environment: Mapping[str, str],
    fold: int | None = None,
    resumed: str | None = None,
    config: Path | None = None,
    preset: str | None = None,
    overrides: Iterable[tuple[str, str]] = (),
    offline: bool = False,
    allow_test_selection: bool = False,
) -> TrainingJob:
    """Find settings and data for training.

    Args:
        folders: Prepared data sets; none: see :func:`open_prepared`, or those of ``resumed``.
        environment: Environment variables.
        fold: Fold to validate on; None: the images held out by ``preprocess``.
        resumed: Name of a run to resume, or ``auto``; None: a new run.
        config: Run file.
        preset: Name of a shipped run file.
        overrides: Settings and their values as text, the later the stronger.
        offline: Download no checkpoint.
        allow_test_selection: Allow settings that select on the test images.

    Raises:
        ConfigError: If a setting is unknown or wrong.
        UsageError: If test images would be selected on without permission, or several data sets
            were found and none was chosen.
        InputMissingError: If a file, run or data set is missing.
    """
    run = None if resumed is None else find_run(resumed)
    tree = given_settings(
        config=config,
        preset=preset,
        overrides=overrides,
        environment=environment,
        directory=Path() if run is None else None,
        start=None if run is None else run.config,
    )
    if run is None:
        settings = new_run_config(tree, offline=offline)
        check_selection(settings, allow_test=allow_test_selection)
    else:
        # An existing run has complete settings, and its initial weights may be gone.
        settings = RunConfig.from_mapping(tree)
    data = None
    if run is None or folders:
        data = open_prepared(folders, environment=environment, fold=fold)
    return TrainingJob(config=settings, data=data, run=run)
