"""Options shared by several commands, and the classes of commands and groups."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from crowdcount.cli.console import flush_output, open_console, stops_cleanly
from crowdcount.errors import UsageError

Data = Annotated[
    list[Path] | None,
    typer.Option(
        "--data",
        help="Prepared data set; repeatable, to use several together. "
        "(default: CROWDCOUNT_DATA_DIR, or the one under data/)",
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        metavar="CHECKPOINT",
        help="Checkpoint or run folder, hf://OWNER/NAME@REVISION on the model hub, or starter: "
        "the model that ships with crowdcount. "
        "(default: CROWDCOUNT_CHECKPOINT, or the latest run, or starter)",
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        envvar="CROWDCOUNT_OFFLINE",
        help="Never download: fail, and name what to fetch.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:0, mps.")]
Precision = Annotated[
    str, typer.Option("--precision", help="Number format of the network: fp32, bf16 or fp16.")
]
Scale = Annotated[
    float | None,
    typer.Option(
        "--scale",
        min=1e-3,
        help="Resize images by this factor before counting. "
        "(default: into the model's working size)",
    ),
]
Dataset = Annotated[
    str | None, typer.Option("--dataset", help="Recipe to use, if the layout fits several or none.")
]
Recipe = Annotated[Path | None, typer.Option("--recipe", help="Your own recipe file (TOML).")]
Fold = Annotated[
    int | None,
    typer.Option(
        "--fold",
        help="Fold to validate on, from 1; the others are for training. "
        "(default: the images that preprocess held out)",
    ),
]
MaxPixels = Annotated[
    int,
    typer.Option("--max-pixels", min=1, help="Refuse images with more pixels, before decoding."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what already exists.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done; write nothing.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


class Command(TyperCommand):
    """A command that also takes ``-q``, ``-v``, ``--log-file`` and ``--no-progress``.

    They are the parameters of :func:`open_console`, whose result is ``context.obj``. SIGINT and
    SIGTERM stop it, unless the command handles them itself.
    """

    context_class = typer.Context

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_OPEN_CONSOLE.params)

    def invoke(self, ctx: Any) -> Any:
        """Open the console, then run the command."""
        names = [parameter.name for parameter in _OPEN_CONSOLE.params]
        ctx.obj = _OPEN_CONSOLE.callback(**{name: ctx.params.pop(name) for name in names})
        with stops_cleanly():
            return super().invoke(ctx)


class Program(TyperGroup):
    """The group of all commands, which a closed pipe ends quietly, as with ``| head``."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        # Typer would exit with 1.
        with suppress(BrokenPipeError):
            try:
                return super().invoke(ctx)
            finally:
                flush_output()


def command_of(function: Callable[..., Any]) -> Any:
    """Return the command that Typer makes from a function: its options and its callback."""
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return typer.main.get_command(app)


_OPEN_CONSOLE = command_of(open_console)


class ListByDefault(TyperGroup):
    """A group of commands whose default is ``list``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert ``list`` before options that are not the group's own."""
        has_command = args[:1] and not args[0].startswith("-")
        if not has_command and args[:1] not in (["-h"], ["--help"]):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def given(context: typer.Context) -> set[str]:
    """Return the names of the parameters that stood on the command line or in the environment."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source and source.name != "DEFAULT"}


def flag(name: str) -> str:
    """Return a parameter as the user writes it."""
    return f"--{name.strip('_').replace('_', '-')}"


def one_recipe(dataset: str | None, recipe: Path | None) -> str | Path | None:
    """Return the recipe named by ``--dataset`` or ``--recipe``.

    Raises:
        UsageError: If both are given.
    """
    if dataset is not None and recipe is not None:
        raise UsageError("--dataset and --recipe both name a recipe; give one of them")
    return dataset if recipe is None else recipe
