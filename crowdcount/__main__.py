"""The command ``crowdcount``, which is also ``python -m crowdcount``."""

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line. Until a command has begun, SIGINT and SIGTERM just end the process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)
    from crowdcount.cli import main as run  # takes a fifth of a second

    run()


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - every handler gets it
    os._exit(128 + number)


if __name__ == "__main__":
    main()
