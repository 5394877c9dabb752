"""Options that more than one command takes."""

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

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
    Path | None,
    typer.Option(
        "--checkpoint",
        help="Checkpoint or run folder. (default: CROWDCOUNT_CHECKPOINT, or the latest run)",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:0, mps.")]
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
MaxPixels = Annotated[
    int,
    typer.Option("--max-pixels", min=1, help="Refuse larger images by their header, undecoded."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.", show_default=False)]

ORDER = "crowdcount.order"


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
