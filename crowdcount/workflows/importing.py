"""The command ``import``: convert a published checkpoint into a checkpoint folder."""

import logging
from pathlib import Path

from crowdcount.core.bins import Bins
from crowdcount.core.image import WorkingSize
from crowdcount.core.limits import MAX_SIDE
from crowdcount.core.published_bins import PUBLISHED_BINS
from crowdcount.data.sources.recipe import load_recipe
from crowdcount.errors import BadInputError, ConfigError, UsageError
from crowdcount.files import sha256_file
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.checkpoints.card import Assumptions, Card, ImportedFile, Provenance
from crowdcount.models.checkpoints.format import save_checkpoint
from crowdcount.models.checkpoints.published import (
    bin_count,
    is_zip,
    published_model,
    unused_names,
    zip_model,
)
from crowdcount.models.checkpoints.tensor_files import TensorFile, read_tensors, refuse_nan
from crowdcount.workflows.bins_tables import check_block, find_table
from crowdcount.workflows.card import assumptions_line, check_free

log = logging.getLogger("crowdcount")

SELECTED_ON = {"sha": "test", "shb": "test", "qnrf": "test", "nwpu": "val", "jhu": "val"}
"""Data sets with published checkpoints, and the split each was selected on: the published code
validates on the test set if there is no other."""

USUAL_T = 4
"""T of the published tables for r = 8; files of CLIP backbones do not show the number of bins."""

DEFAULT_SET = "sha"
"""Data set whose preparation is assumed for a table of your own."""


def import_checkpoint(
    path: Path | str,
    out: Path | str,
    *,
    bins: str | None,
    backbone: str | None = None,
    block: int = 8,
    prompts: str = "words",
    window: int | None = None,
    window_stride: int | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Path:
    """Convert a published checkpoint into a checkpoint folder; log what was assumed.

    Those of EBC-ZIP state everything themselves; for those of CLIP-EBC, bins are needed.

    No code in the file is run.

    Args:
        path: A bare state dict or a training state.
        out: The folder to write.
        bins: Its training data set, which has a published table; or the name of a published table;
            or a file with a table.
        backbone: Its backbone; None: the one that fits its tensors.
        block: Block side of its training, in pixels.
        prompts: ``words`` or ``digits``, as in its training.
        window: Side of the counting windows in pixels; None: that of its position embedding.
        window_stride: Pixels from one window to the next; None: the side.
        force: Replace a checkpoint at ``out``.
        dry_run: Write nothing.

    Returns:
        ``out``.

    Raises:
        InputMissingError: If the file is missing.
        UntrustedFileError: If reading it would run code from it.
        UsageError: If ``out`` exists, or the bins are not given or match more than one table.
        ConfigError: If the backbone, table or data set is unknown, or the windows cut blocks.
        BadInputError: If its tensors are not those of a published model.
    """
    path, out = Path(path), Path(out)
    check_free(out, force=force)
    file = read_tensors(path)
    refuse_nan(file)
    if is_zip(file):
        if bins is not None or backbone is not None:
            raise UsageError(
                f"{path}: a checkpoint of EBC-ZIP, which states its bins and its backbone",
                next_step="leave out --bins and --backbone",
            )
        model = zip_model(file)
        return _save(file, model, out, bins="as in the file", data=None, dry_run=dry_run)
    table, table_name, data = _table(bins, block=block, count=bin_count(file.tensors), path=path)
    try:
        model = published_model(
            file.tensors,
            bins=table,
            backbone=backbone,
            prompts=prompts,
            window=window,
            window_stride=window_stride,
        )
    except BadInputError as error:
        raise BadInputError(
            f"{path}: {error.message}",
            looked_for=error.looked_for,
            next_step=error.next_step
            or "see that backbone, block and bins are those it was trained with",
        ) from error
    return _save(file, model, out, bins=table_name, data=data, dry_run=dry_run)


def _save(
    file: TensorFile, model: BlockCounter, out: Path, *, bins: str, data: str | None, dry_run: bool
) -> Path:
    """Write a converted model with its card, which names its training data if known; log it."""
    rule, config, path = load_recipe(data or DEFAULT_SET).resize, model.config, file.path
    assumed = Assumptions(
        bins=bins,
        block=config.block,
        prompts=None if model.prompts is None else config.prompts,
        window=config.window or 0,
        window_stride=config.window_stride,
        normalisation=config.normalisation,
    )
    card = Card(
        name=path.stem,
        working_size=WorkingSize(
            short_side_min=rule.short_side_min, long_side_max=rule.long_side_max or MAX_SIDE
        ),
        provenance=Provenance(
            data=() if data is None else (data,),
            imported=ImportedFile(file=path.name, sha256=sha256_file(path)),
            selected_on=SELECTED_ON.get(data or "", "test"),
            assumed=assumed,
        ),
    )
    method = "whole images"
    if config.window:
        stride = config.window_stride or config.window
        method = f"windows of {config.window} pixels, one every {stride}"
    log.info("%s: %s, %d bins, %s", path, config.backbone, len(model.bins.starts), method)
    log.info("assumed: %s", assumptions_line(assumed))
    for name in (*file.other, *unused_names(file.tensors)):
        log.info("not used: %s", name)
    if dry_run:
        log.info("to be written to %s", out)
    else:
        save_checkpoint(out, model, card=card)
    return out


def _table(
    chosen: str | None, *, block: int, count: int | None, path: Path
) -> tuple[Bins, str, str | None]:
    """Return the bins of a checkpoint with ``count`` bins, their name, and their data set if known.

    ``chosen`` is a data set, a published table or a file; ``count`` is None if it is not known.
    """
    if chosen is None:
        raise UsageError(
            f"{path}: does not say on which data it was trained, and bins depend on that",
            looked_for=f"one of: {', '.join(SELECTED_ON)}; a published table; or a file",
            next_step="name the data set: --bins sha",
        )
    if chosen in SELECTED_ON:
        names = _tables_of(chosen, block=block, count=count)
        if len(names) != 1:
            raise UsageError(
                f"--bins {chosen}: {len(names) or 'no'} published tables for blocks of {block} "
                f"pixels{'' if count is None else f' and {count} bins'}",
                looked_for=", ".join(names or _tables_of(chosen)),
                next_step="name one of them, or a file with the table: --bins NAME",
            )
        chosen = names[0]
    table = find_table(chosen)
    if table.values is None:
        raise ConfigError(
            f"--bins {chosen}: says where bins start, not what stands for each",
            next_step="write both into a file: starts = [...] and values = [...]",
        )
    check_block(table, block=block)
    if count not in (None, len(table.starts)):
        raise BadInputError(
            f"{path}: has {count} bins, and {chosen} has {len(table.starts)}",
            next_step="name the table it was trained with: --bins NAME",
        )
    data = chosen.partition("-")[0]
    return (
        Bins(block=block, starts=table.starts, values=table.values),
        Path(chosen).name,
        data if data in SELECTED_ON else None,
    )


def _tables_of(data: str, *, block: int | None = None, count: int | None = None) -> list[str]:
    """List the published tables of a data set for a block side and a number of bins, if given."""
    names = [
        name
        for name, table in PUBLISHED_BINS.items()
        if name.startswith(f"{data}-") and block in (None, table.block)
    ]
    if count is not None:
        return [name for name in names if len(PUBLISHED_BINS[name].starts) == count]
    usual = f"{data}-r8-t{USUAL_T}"
    return [usual] if block is not None and usual in names else names
