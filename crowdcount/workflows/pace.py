"""How fast a run goes, and how long it is still going to take."""

import time
from collections.abc import Callable


class Pace:
    """The speed of a training run since this process works on it.

    Validations and checkpoints count in; what an earlier process did, and the time since, do not.
    """

    def __init__(
        self, *, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to measure.

        Args:
            total: Steps of the whole run.
            done: Steps that were done before.
            clock: Gives seconds.
        """
        self._total, self._done, self._clock = total, done, clock
        self._began = clock()

    def seconds_left(self, done: int) -> float | None:
        """Time to the last step after ``done`` steps of the run; None: there is no telling yet."""
        taken = done - self._done
        if taken < 1:
            return None
        return (self._total - done) * (self._clock() - self._began) / taken
