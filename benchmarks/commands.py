"""How long whole commands take: wall time of new processes, medians after a warm-up.

python -m benchmarks.commands [--runs 5] [--data data/sha]
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

LIMITS = {"--version": 0.3, "--help": 0.3, "train --help": 0.3, "bins": 10.0}
"""Seconds that each command may take on two cores."""


def seconds(arguments: list[str]) -> float:
    """Wall time of one run in a new process."""
    command = [sys.executable, "-m", "crowdcount", *arguments]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--data", type=Path, help="prepared ShanghaiTech part A, for `bins`")
    options = parser.parse_args()
    commands = {name: name.split() for name in LIMITS if name != "bins"}
    if options.data is not None:
        commands["bins"] = ["bins", "--data", str(options.data), "--dry-run"]
    print(f"{'crowdcount ...':<16}{'median':>9}{'min':>9}{'max':>9}{'limit':>9}{'ratio':>9}")
    for name, arguments in commands.items():
        seconds(arguments)
        times = [seconds(arguments) for _ in range(options.runs)]
        median, limit = statistics.median(times), LIMITS[name]
        figures = f"{median:>9.3f}{min(times):>9.3f}{max(times):>9.3f}{limit:>9.1f}"
        print(f"{name:<16}{figures}{median / limit:>9.2f}")


if __name__ == "__main__":
    main()
