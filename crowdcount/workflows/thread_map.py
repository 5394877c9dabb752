"""Map a function over many images in threads, in order and with progress."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from crowdcount.core.progress import Track, untracked
from crowdcount.errors import UsageError
from crowdcount.opencv import cv2

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True, kw_only=True)
class ThreadMap:
    """Maps a function over items in ``jobs`` threads; decoding and hashing release Python's lock.

    Raises:
        UsageError: If ``jobs`` is less than 1.
    """

    jobs: int = 1
    track: Track = untracked

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise UsageError(f"jobs must be at least 1, got {self.jobs}")

    def __call__(
        self, function: Callable[[Item], Outcome], items: Sequence[Item], *, label: str
    ) -> Iterator[Outcome]:
        """Yield outcomes in the order of the items; items not yet begun are dropped on an exit."""
        if self.jobs == 1:
            yield from self.track(map(function, items), label=label, total=len(items))
            return
        pool = ThreadPoolExecutor(max_workers=self.jobs)
        # OpenCV's own threads would compete with these.
        before = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            yield from self.track(pool.map(function, items), label=label, total=len(items))
        finally:
            pool.shutdown(cancel_futures=True)
            cv2.setNumThreads(before)
