"""How long preparing ShanghaiTech takes, and its bins: time and memory against their limits.

python -m benchmarks.preprocessing --data FOLDER [--jobs 2] [--runs 5]

FOLDER holds ShanghaiTech/part_A and ShanghaiTech/part_B. Every run is a process of its own that
prepares into a new folder; one run comes before, so that the files are in the system's cache.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

LIMITS = {
    ("part_A", "ms per image"): 4.0,
    ("part_B", "ms per image"): 2.0,
    ("part_A", "peak MB"): 500.0,
    ("part_B", "peak MB"): 500.0,
    ("part_A", "bins, s"): 4.0,
    ("part_B", "bins, s"): 6.0,
}
"""On two cores with two jobs. Of part A most images are resized, of part B none."""

WORK = "--work"
"""Asks this file to prepare once and say how long that took; what the benchmark itself runs."""


def prepare(source: Path, out: Path, jobs: int) -> None:
    """Prepare, and print milliseconds per image, start-up left out: wall, CPU, CPU of Pillow."""
    import scipy.io  # noqa: F401 - start-up as well: a third of a second, at the first MATLAB file

    from crowdcount.workflows.preprocess import preprocess

    started, cpu = time.perf_counter(), time.process_time()
    (result,) = preprocess(source, out=out, jobs=jobs)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    images = sum(total.images for total in result.totals.values())
    print(1e3 * wall / images, 1e3 * cpu / images, 1e3 * pillow_alone(source, out))


def pillow_alone(source: Path, out: Path) -> float:
    """CPU seconds per image of the least that Pillow has to do, as a yardstick for the machine.

    Every fourth image: decode, resize and encode, or decode coarsely what is copied.
    """
    from PIL import Image

    from crowdcount.data.prepared.manifest import read_manifest

    records = read_manifest(out).images[::4]
    spent = 0.0
    for record in records:
        content = io.BytesIO((source / record.source).read_bytes())
        started = time.process_time()
        with Image.open(content) as image:
            if image.size == (record.width, record.height):
                image.draft("L", (1, 1))
                image.load()
            else:
                picture = image.convert("RGB")
                new = picture.resize((record.width, record.height), Image.Resampling.BICUBIC)
                new.save(io.BytesIO(), "JPEG", quality=95)
        spent += time.process_time() - started
    return spent / len(records)


def run(*arguments: str | Path) -> tuple[float, float, str]:
    """Wall seconds and peak megabytes of a new process, and what it printed."""
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"exit {process.returncode}: {' '.join(map(str, arguments))}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return wall, usage.ru_maxrss / unit, output


def measured(source: Path, out: Path, jobs: int) -> Iterator[tuple[str, float]]:
    """Everything that one run tells of a part; ``out`` is a new folder."""
    command = ("-m", "crowdcount", "preprocess", source, "--jobs", str(jobs))
    wall, _, printed = run(__file__, WORK, source, out / "timed", str(jobs))
    per_image, cpu, pillow = map(float, printed.split())
    yield "ms per image", per_image
    yield "CPU ms per image", cpu
    yield "of that Pillow", pillow
    wall, peak, _ = run(*command, "--out", out / "whole")
    yield "whole command, s", wall
    yield "peak MB", peak
    yield "run again, s", run(*command, "--out", out / "whole")[0]
    yield (
        "--verify, s",
        run("-m", "crowdcount", "preprocess", "--verify", out / "whole", "--jobs", str(jobs))[0],
    )
    yield "bins, s", run("-m", "crowdcount", "bins", "--data", out / "whole")[0]


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds ShanghaiTech/part_A, _B")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(f"{'':<26}{'median':>9}{'min':>9}{'max':>9}{'limit':>9}{'ratio':>9}")
    for part in ("part_A", "part_B"):
        source = options.data / "ShanghaiTech" / part
        figures: dict[str, list[float]] = {}
        for number in range(options.runs + 1):
            with tempfile.TemporaryDirectory() as folder:
                for name, value in measured(source, Path(folder), options.jobs):
                    figures.setdefault(name, [])
                    if number > 0:  # the first only warms up
                        figures[name].append(value)
        for name, values in figures.items():
            median = statistics.median(values)
            line = f"{part} {name:<19}{median:>9.2f}{min(values):>9.2f}{max(values):>9.2f}"
            limit = LIMITS.get((part, name))
            print(line + ("" if limit is None else f"{limit:>9.1f}{median / limit:>9.2f}"))


if __name__ == "__main__":
    if sys.argv[1:2] == [WORK]:
        prepare(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
