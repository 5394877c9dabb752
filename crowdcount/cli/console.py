"""Messages, tables and progress bars on stderr, signals, and results on stdout."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from crowdcount.files import naming
from crowdcount.wording import one_line

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress

Item = TypeVar("Item")

log = logging.getLogger("crowdcount")

_STYLES = {logging.WARNING: "yellow", logging.ERROR: "red"}


class Console(logging.Handler):
    """Log lines and progress bars on stderr, through one Rich console so that neither breaks.

    A command finds its console in ``context.obj``.
    """

    def __init__(self, rich: "RichConsole", *, level: int = logging.INFO, bars: bool) -> None:
        super().__init__(level)
        self.rich = rich
        self.bars = bars

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log record."""
        message = _one_line_arguments(record).getMessage()
        if record.levelno >= logging.WARNING:
            message = f"{record.levelname.lower()}: {message}"
        self.rich.print(message, style=_STYLES.get(record.levelno), soft_wrap=True)

    def track(
        self,
        items: Iterable[Item],
        *,
        label: str,
        total: int | None = None,
        prints: bool = False,
    ) -> Iterator[Item]:
        """Draw a bar over ``items``, as a ``Track``; none over a single one.

        Args:
            items: The items.
            label: Text before the bar.
            total: Number of the items, where they do not know it.
            prints: Each item is printed, so the bar is taken away meanwhile.
        """
        if total is None and isinstance(items, Sized):
            total = len(items)
        if not self.bars or total == 1:
            yield from items
            return
        with self.progress_bar() as bar:
            task = bar.add_task(label, total=total, note="")
            for item in items:
                if prints:
                    bar.stop()
                yield item
                if prints:
                    bar.start()
                bar.advance(task)

    def progress_bar(self, *, seconds: float = 30.0) -> "Progress":
        """Return an empty bar with rate and remaining time.

        Args:
            seconds: Time over which the rate is measured.
        """
        from rich import progress
        from rich.text import Text

        class Rate(progress.ProgressColumn):
            def render(self, task: progress.Task) -> Text:
                if not task.speed:
                    return Text("")
                slow = task.speed < 1
                return Text(f"{1 / task.speed:.1f} s each" if slow else f"{task.speed:.1f}/s")

        return progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            Rate(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}"),
            console=self.rich,
            speed_estimate_period=seconds,
            transient=True,
            disable=not self.bars,
        )


class _LogFile(logging.FileHandler):
    """A log file whose failure to write ends the command."""

    def emit(self, record: logging.LogRecord) -> None:
        with naming(Path(self.baseFilename)):
            super().emit(_one_line_arguments(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002
        raise


def _one_line_arguments(record: logging.LogRecord) -> logging.LogRecord:
    """Escape line ends in texts and paths of a record, so that a name cannot fake a line."""
    if not isinstance(record.args, tuple):
        return record
    record.args = tuple(
        one_line(str(argument)) if isinstance(argument, str | Path) else argument
        for argument in record.args
    )
    return record


def open_console(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print more.")] = False,
    log_file: Annotated[
        Path | None, typer.Option("--log-file", help="Also write the full log to this file.")
    ] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bars.")] = False,
) -> Console:
    """Direct the log to stderr and to a file, and return the console."""
    from rich.console import Console as RichConsole

    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    rich = RichConsole(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    # Not rich.is_terminal: FORCE_COLOR asks for colours in a pipe, but not for bars.
    terminal = sys.stderr.isatty() and not rich.is_dumb_terminal
    console = Console(rich, level=level, bars=terminal and not (quiet or no_progress))
    # Where its folder is read-only, Matplotlib warns that it keeps its fonts elsewhere.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    for handler in list(log.handlers):
        log.removeHandler(handler)
        with suppress(OSError):  # its disk is full
            handler.close()
    log.propagate = False
    log.setLevel(logging.DEBUG)
    log.addHandler(console)
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        file_handler = _LogFile(log_file, encoding="utf-8")
        file_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file_handler)
    return console


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM so that work stops between two steps; a second SIGINT kills.

    Yields:
        The signals received so far.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and received:
            signal.default_int_handler(number, frame)
        received.append(number)
        log.warning("%s: stopping after this step", signal.Signals(number).name)

    with _handling(receive):
        yield received


@contextmanager
def stops_cleanly(advice: str = "") -> Iterator[None]:
    """Let SIGINT and SIGTERM stop work at any point, and exit with 130 or 143.

    Args:
        advice: Printed as the user's next step.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - every handler gets it
        received.append(number)
        raise KeyboardInterrupt

    try:
        with _handling(stop):
            yield
    except BaseException:
        # An import or a library may have turned the interrupt into an error of its own.
        if not received:
            raise
    if received:
        name = signal.Signals(received[0]).name
        log.error("%s: stopped%s", name, f"; {advice}" if advice else "")
        raise typer.Exit(128 + received[0])


@contextmanager
def _handling(handler: Any) -> Iterator[None]:
    """Handle SIGINT and SIGTERM by ``handler``."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def log_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Log a table with its columns aligned."""
    for line in table_lines(header, rows):
        log.info("  %s", line)


def table_lines(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1
) -> list[str]:
    """Align a table: its first ``left`` columns to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


@contextmanager
def open_output(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that writes bytes to a file at once; ``-`` is stdout."""
    standard = path == Path("-")
    if not standard:
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(data: bytes) -> None:
        with naming(Path("standard output") if standard else path):
            stream.write(data)
            stream.flush()

    with nullcontext(sys.stdout.buffer) if standard else path.open("wb") as stream:
        yield write


def flush_output() -> None:
    """Write what is left in the buffer of stdout; drop it if that fails, for Python tries again."""
    with naming(Path("standard output")):
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise


def print_paths(paths: Iterable[Path]) -> None:
    """Print one path per line; paths need not be UTF-8."""
    with open_output(Path("-")) as write:
        write(b"".join(os.fsencode(path) + b"\n" for path in paths))


def print_rows(rows: Iterable[Iterable[Any]]) -> None:
    """Print one line per row, its values separated by tabs."""
    for row in rows:
        typer.echo("\t".join(map(_cell, row)))


def _cell(value: Any) -> str:
    r"""Format a value as one line of text, with backslash, tab and newline as ``\\ \t \n``."""
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.6g}"
        case list() | tuple():
            return ", ".join(map(_cell, value))
    return str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
