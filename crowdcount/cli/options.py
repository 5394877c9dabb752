"""Options that more than one command takes."""

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from crowdcount.errors import UsageError

Data = Annotated[
    list[Path] | None,
    typer.Option(
        "--data",
        help="Prepared data set; several are used together. "
        "(default: CROWDCOUNT_DATA_DIR, or what lies under data/)",
        show_default=False,
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        metavar="CHECKPOINT",
        help="Checkpoint or run folder, hf://OWNER/NAME[@REVISION] on the model hub, or starter: "
        "the model that ships with crowdcount. "
        "(default: CROWDCOUNT_CHECKPOINT, or the latest run, or starter)",
        show_default=False,
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        envvar="CROWDCOUNT_OFFLINE",
        help="Never download: fail and say what to fetch.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:0, mps.")]
Precision = Annotated[
    str,
    typer.Option("--precision", help="What the network computes with: fp32, bf16 or fp16."),
]
Scale = Annotated[
    float | None,
    typer.Option(
        "--scale",
        min=1e-3,
        help="Resize images by this factor before counting. "
        "(default: what brings them into the model's working size)",
        show_default=False,
    ),
]
Dataset = Annotated[
    str | None, typer.Option("--dataset", help="Recipe to use, where the layout does not tell.")
]
Recipe = Annotated[
    Path | None,
    typer.Option("--recipe", help="Recipe file of your own (TOML) to use.", show_default=False),
]
Fold = Annotated[
    int | None,
    typer.Option(
        "--fold",
        help="Take this fold, from 1, for validation and the others for training. "
        "(default: what preprocess held out)",
        show_default=False,
    ),
]
MaxPixels = Annotated[
    int,
    typer.Option("--max-pixels", min=1, help="Refuse larger images by their header, undecoded."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.", show_default=False)]

ORDER = "crowdcount.order"


def one_recipe(dataset: str | None, recipe: Path | None) -> str | Path | None:
    """The recipe that was named, by name or by file.

    Raises:
        UsageError: If both were.
    """
    if dataset is not None and recipe is not None:
        raise UsageError("--dataset and --recipe both name a recipe; give one of them")
    return dataset if recipe is None else recipe


class OrderedCommand(TyperCommand):
    """A command that remembers the order in which its options were given.

    Flags and ``--set`` override each other by position, which the parsed values alone do not tell.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note ``(name, value)`` of each option in order, then parse as usual."""
        values, _, order = self.make_parser(ctx).parse_args(args=list(args))
        # Of an option that was repeated and takes one value, the last is what it means everywhere.
        each_in_turn = {
            name: iter(value) if isinstance(value, list) else itertools.repeat(value)
            for name, value in values.items()
        }
        names = [parameter.name for parameter in order if parameter.name in each_in_turn]
        ctx.meta[ORDER] = [(name, next(each_in_turn[name])) for name in names]
        return super().parse_args(ctx, args)


class ListByDefault(TyperGroup):
    """A group that lists when it is not told what to do."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``list`` before options that are not the group's own."""
        named = args[:1] and not args[0].startswith("-")
        if not named and args[:1] not in (["-h"], ["--help"]):
            args = ["list", *args]
        return super().parse_args(ctx, args)
