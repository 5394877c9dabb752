"""Work on many images at once, in order."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@contextmanager
def mapped(
    function: Callable[[Item], Outcome], items: Iterable[Item], *, jobs: int
) -> Iterator[Iterable[Outcome]]:
    """Outcomes in the order of the items. Threads do: decoding and hashing let others run.

    When the block is left early, what has not begun is not done any more.
    """
    if jobs == 1:
        yield map(function, items)
        return
    pool = ThreadPoolExecutor(max_workers=jobs)
    # Threads of OpenCV's own would only get in the way of these.
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(before)
