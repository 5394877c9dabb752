"""What every command shares: verbosity, progress bars and logs on stderr, output on stdout."""

import functools
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from crowdcount.cli.options import ORDER

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Item = TypeVar("Item")

log = logging.getLogger("crowdcount")

COMMON = {
    "quiet": Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing but errors.", show_default=False)
    ],
    "verbose": Annotated[
        bool, typer.Option("--verbose", "-v", help="Say more.", show_default=False)
    ],
    "log_file": Annotated[
        Path | None, typer.Option("--log-file", help="Also write the log, in full, to this file.")
    ],
    "no_progress": Annotated[
        bool, typer.Option("--no-progress", help="No progress bars.", show_default=False)
    ],
}
_STYLES = {logging.WARNING: "yellow", logging.ERROR: "red"}
DEFAULTS = {"quiet": False, "verbose": False, "log_file": None, "no_progress": False}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a command talks."""

    console: "Console"
    bars: bool


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``-q``, ``-v``, ``--log-file`` and ``--no-progress`` to a command and set them up.

    A command whose function takes ``console`` gets the :class:`Settings` that follow from them;
    one that takes ``order``, an :class:`OrderedCommand`, its options in the order they were given;
    one that takes ``given``, the names of the arguments and options that stood on the command line.
    """
    signature = inspect.signature(function)
    from_context = {"order", "given"} & signature.parameters.keys()
    not_own = ("console", *from_context)
    own = [each for each in signature.parameters.values() if each.name not in not_own]

    @functools.wraps(function)
    def wrapper(**arguments: Any) -> None:
        common = {name: arguments.pop(name) for name in COMMON}
        settings = _set_up(**common)
        context = arguments.pop("context", None)
        if "order" in from_context:
            arguments["order"] = context.meta[ORDER]
        if "given" in from_context:
            arguments["given"] = _given(context)
        if "console" in signature.parameters:
            arguments["console"] = settings
        function(**arguments)

    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS[name], annotation=annotation
        )
        for name, annotation in COMMON.items()
    ]
    if from_context:
        keyword = inspect.Parameter.KEYWORD_ONLY
        added.append(inspect.Parameter("context", keyword, annotation=typer.Context))
    keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    wrapper.__signature__ = signature.replace(parameters=[*keyword_only, *added])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {each.name: each.annotation for each in [*keyword_only, *added]} | {
        "return": None
    }
    return wrapper


def _given(context: Any) -> frozenset[str]:
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(
        name for name, source in sources.items() if source and source.name != "DEFAULT"
    )


def _set_up(*, quiet: bool, verbose: bool, log_file: Path | None, no_progress: bool) -> Settings:
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.propagate = False
    log.setLevel(logging.DEBUG)
    to_stderr = _ConsoleHandler(console)
    to_stderr.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    log.addHandler(to_stderr)
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(log_file, encoding="utf-8")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(to_file)
    # Not console.is_terminal: FORCE_COLOR asks for colours in a pipe, and for no more than that.
    terminal = sys.stderr.isatty() and not console.is_dumb_terminal
    return Settings(console=console, bars=terminal and not (quiet or no_progress))


class _ConsoleHandler(logging.Handler):
    """Log lines through the console that draws the bars, so that neither breaks the other."""

    def __init__(self, console: "Console") -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            message = f"{record.levelname.lower()}: {message}"
        self.console.print(message, style=_STYLES.get(record.levelno), soft_wrap=True)


def tracker(settings: Settings) -> Callable[..., Iterable[Any]]:
    """A ``Track`` that draws a bar with rate and remaining time, where bars are wanted."""
    from crowdcount.core.progress import untracked

    if not settings.bars:
        return untracked

    def track(items: Iterable[Item], *, label: str, total: int | None = None) -> Iterator[Item]:
        with progress_bar(settings) as bar:
            if total is None and isinstance(items, Sized):
                total = len(items)
            task = bar.add_task(label, total=total, note="")
            for item in items:
                yield item
                bar.advance(task)

    return track


def progress_bar(settings: Settings, *, seconds: float = 30.0) -> "Progress":
    """An empty bar on stderr with rate and remaining time.

    Args:
        settings: Whether and where bars are drawn.
        seconds: How far back the rate is measured.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            if not task.speed:
                return Text("")
            each = f"{task.speed:.1f}/s" if task.speed >= 1 else f"{1 / task.speed:.1f} s each"
            return Text(each)

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=settings.console,
        speed_estimate_period=seconds,
        transient=True,
        disable=not settings.bars,
    )


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second SIGINT stops at once.

    Yields:
        The signals received so far.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and received:
            signal.default_int_handler(number, frame)
        received.append(number)
        log.warning("%s: stopping after this step", signal.Signals(number).name)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Stopped(KeyboardInterrupt):
    """A signal that ends the command."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stops_cleanly(advice: str) -> Iterator[None]:
    """Let SIGINT and SIGTERM unwind what is under way, and end with exit 130 or 143.

    For work that is safe to leave at any point.

    Args:
        advice: What the user can do then.
    """

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - of any handler
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _Stopped as stopped:
        log.error("%s: stopped; %s", signal.Signals(stopped.number).name, advice)
        raise typer.Exit(128 + stopped.number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_out(data: bytes) -> None:
    """Write bytes to stdout: paths need not be UTF-8."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def print_paths(paths: Iterable[Path]) -> None:
    """Print one path a line."""
    write_out(b"".join(os.fsencode(path) + b"\n" for path in paths))


def print_rows(rows: Iterable[Iterable[Any]]) -> None:
    """Print a line for each row, its values separated by tabs."""
    for row in rows:
        typer.echo("\t".join(map(_cell, row)))


def _cell(value: Any) -> str:
    r"""A value on one line of text: backslash, tab and newline written ``\\``, ``\t``, ``\n``."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
