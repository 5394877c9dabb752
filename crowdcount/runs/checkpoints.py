"""The checkpoints that a run keeps: the last, the best, and the best few."""

import dataclasses
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from crowdcount.core.metrics import CountMetrics
from crowdcount.errors import CrowdCountError
from crowdcount.files import copy_folder, is_temporary, restore_folder
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.checkpoints.card import Card
from crowdcount.models.checkpoints.format import describe, save_checkpoint
from crowdcount.models.checkpoints.names import WEIGHTS_NAME

log = logging.getLogger("crowdcount")

LAST = "last"
BEST = "best"
TOP = "top"


@dataclass(frozen=True, kw_only=True, order=True)
class Ranked:
    """A validated epoch. A lower error ranks first, then an earlier epoch."""

    mae: float
    epoch: int

    @property
    def folder(self) -> str:
        """Its folder among the best few, relative to the run."""
        return f"{TOP}/epoch-{self.epoch:04d}"


class Checkpoints:
    """Keeps the last checkpoint of a run, its best, and its best few.

    A run can go back to its latest saved state. So the checkpoints that this state ranks stay on
    disk, in ``top/``, until the next state is saved, even where better ones have replaced them.

    Attributes:
        best: The best validation so far; None: nothing was validated.
        top: The best epochs so far, the best first.
    """

    def __init__(self, folder: Path, *, keep_best: int) -> None:
        self.folder = folder
        self.keep_best = keep_best
        self.best: CountMetrics | None = None
        self.top: tuple[Ranked, ...] = ()
        self._saved: tuple[Ranked, ...] = ()

    def add(
        self,
        model: BlockCounter,
        *,
        epoch: int,
        metrics: CountMetrics | None,
        card: Card,
    ) -> bool:
        """Save a model as the last checkpoint and, by its rank, among the best.

        Returns whether it is the best so far. ``metrics`` are its validation, if there was one.
        """
        last = self.folder / LAST
        save_checkpoint(last, model, card=card)
        if metrics is None:
            return False
        better = self.best is None or metrics.mae < self.best.mae
        if better:
            if self._saved and self._saved[0] == self.top[0]:
                self._keep_in_top(self._saved[0])
            copy_folder(last, self.folder / BEST)
            self.best = metrics
        ranked = Ranked(mae=metrics.mae, epoch=epoch)
        self.top = tuple(sorted([*self.top, ranked])[: self.keep_best])
        if ranked in self.top and self.keep_best > 1:
            copy_folder(last, self.folder / ranked.folder)
        self._prune()
        return better

    def to_state(self) -> dict[str, Any]:
        """Return plain values from which :meth:`rewind` restores this ranking."""
        return {
            "best": None if self.best is None else dataclasses.asdict(self.best),
            "top": [dataclasses.asdict(ranked) for ranked in self.top],
        }

    def mark_saved(self) -> None:
        """Note that a state with this ranking was saved; remove what only the earlier one needs."""
        self._saved = self.top
        self._prune()

    def rewind(self, state: Mapping[str, Any] | None) -> None:
        """Bring ranking and folders back to a saved state; None: to the beginning.

        Also puts back folders whose replacement was cut short by a kill, in this version or an
        earlier one.
        """
        best = None if state is None else state["best"]
        self.best = None if best is None else CountMetrics(**best)
        self.top = () if state is None else tuple(Ranked(**values) for values in state["top"])
        for name in (LAST, BEST, *(ranked.folder for ranked in self.top)):
            restore_folder(self.folder / name)
        if not self.top:
            shutil.rmtree(self.folder / BEST, ignore_errors=True)
        elif not self._restore_best(self.top[0]):
            log.warning(
                "%s: the checkpoint of epoch %d, the best so far, is lost; the next one that is "
                "validated counts as the best",
                self.folder,
                self.top[0].epoch,
            )
            shutil.rmtree(self.folder / BEST, ignore_errors=True)
            self.best, self.top = None, ()
        if self.top and self.keep_best > 1:
            self._keep_in_top(self.top[0])
            self.top = tuple(
                ranked for ranked in self.top if _epoch(self.folder / ranked.folder) == ranked.epoch
            )
        self.mark_saved()

    def finish(self) -> None:
        """Remove the checkpoints that only a return to a saved state needs."""
        self._saved = ()
        self._prune()

    def _keep_in_top(self, ranked: Ranked) -> None:
        """Copy ``best/``, the checkpoint of ``ranked``, into ``top/``."""
        if _epoch(self.folder / ranked.folder) != ranked.epoch:
            copy_folder(self.folder / BEST, self.folder / ranked.folder)

    def _restore_best(self, ranked: Ranked) -> bool:
        """Make ``best/`` the checkpoint of an epoch, if one is found."""
        best = self.folder / BEST
        # Earlier versions set best/ aside under a temporary name while they replaced it.
        aside = [path for path in self.folder.glob(f".*.{BEST}") if is_temporary(path)]
        for path in (best, self.folder / ranked.folder, *aside):
            if _epoch(path) == ranked.epoch:
                if path != best:
                    copy_folder(path, best)
                return True
        return False

    def _prune(self) -> None:
        """Remove checkpoints in ``top/`` that neither this ranking nor the saved state needs."""
        top = self.folder / TOP
        needed = {*self.top, *self._saved} if self.keep_best > 1 else {*self._saved} - {*self.top}
        for path in set(top.glob("*")) - {self.folder / ranked.folder for ranked in needed}:
            shutil.rmtree(path)
        if top.is_dir() and not any(top.iterdir()):
            top.rmdir()


def _epoch(folder: Path) -> int | None:
    """Return the epoch of a checkpoint, or None if it is damaged or missing."""
    try:
        with safe_open(folder / WEIGHTS_NAME, framework="pt"):  # also checks the file's length
            return describe(folder).card.provenance.epoch
    except (CrowdCountError, OSError, SafetensorError):
        return None
