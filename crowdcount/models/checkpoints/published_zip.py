"""Published checkpoints of EBC-ZIP, converted to our models.

Such a file holds ``{"config": {...}, "weights": state dict}`` and states everything a count depends
on. Names of tensors are those of the published code (github.com/Yiming-M/EBC-ZIP).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch

from crowdcount.core.bins import Bins
from crowdcount.core.settings import parse
from crowdcount.errors import BadInputError
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.build import empty_model
from crowdcount.models.checkpoints.published import published_names
from crowdcount.models.checkpoints.tensor_files import TensorFile, drop_counters, exact_tensors
from crowdcount.models.config import ModelConfig

SMALL = re.compile(r"mobilenetv2_050|mobilenetv3_small_.*|mobilenetv4_conv_small.*")
"""Networks with refining blocks of one depthwise and one 1x1 convolution."""


@dataclass(frozen=True, kw_only=True)
class _Config:
    """Settings in a file that a count depends on."""

    model_name: str
    block_size: int
    bins: tuple[tuple[int, float | None], ...]
    bin_centers: tuple[float, ...]
    zero_inflated: bool
    norm: str = "none"
    """``none``: that of the encoder; so for ``act``."""

    act: str = "none"


def is_zip(file: TensorFile) -> bool:
    """Return whether a file has the form of EBC-ZIP's checkpoints."""
    return isinstance(file.other.get("config"), Mapping) and "bin_head.weight" in file.tensors


def zip_model(file: TensorFile) -> BlockCounter:
    """Build the model of a published checkpoint of EBC-ZIP, in evaluation mode.

    Raises:
        BadInputError: If its settings are damaged or of a network whose form is not certain, or
            its tensors are not those of that network.
    """
    try:
        given = parse(_Config, file.other["config"])
        bins = Bins(
            block=given.block_size,
            starts=tuple(low for low, _ in given.bins),
            values=given.bin_centers,
        )
        if any(high is None or high + 1 != low for (_, high), (low, _) in pairwise(given.bins)):
            raise ValueError("bins leave gaps, or overlap")
        if bins.values[0] != 0:
            raise ValueError("the first bin stands for empty blocks, but its centre is not 0")
    except ValueError as error:
        raise BadInputError(f"{file.path}: its config is not one of EBC-ZIP: {error}") from error
    own_kind = given.zero_inflated and given.norm == given.act == "none"
    if not (SMALL.fullmatch(given.model_name) and own_kind):
        raise BadInputError(
            f"{file.path}: a checkpoint of EBC-ZIP with {given.model_name}, zero_inflated = "
            f"{given.zero_inflated}, norm = {given.norm}, act = {given.act}; this version reads "
            "the zero-inflated ones of small networks with their own norm and activation",
            looked_for="mobilenetv2_050, mobilenetv3_small_..., mobilenetv4_conv_small...",
        )
    config = ModelConfig(
        backbone=f"timm:{given.model_name}",
        head="zip",
        decoder="zip",
        block=bins.block,
        pretrained="none",
        normalisation="clip",
    )
    with torch.random.fork_rng(devices=[]):
        model = empty_model(config, bins)
    own = model.state_dict()
    theirs = {
        ours: name
        for ours, name in published_names(own, family="zip").items()
        if not ours.startswith("head.0.")
    }
    if not any(name.startswith("neck.halve.1.") for name in own):
        # A decoder of one block is not numbered in the file.
        single = ("backbone.decoder.0.", "backbone.decoder.")
        theirs = {ours: name.replace(*single) for ours, name in theirs.items()}
    tensors = dict(file.tensors)
    tensors.pop("bin_centers", None)
    heads = {
        f"{head}_head.{kind}": own[f"head.0.{kind}"][rows]
        for kind in ("weight", "bias")
        for head, rows in (("pi", slice(2)), ("bin", slice(2, None)))
    }
    published = exact_tensors(
        drop_counters(tensors),
        drop_counters({theirs[name]: own[name] for name in theirs} | heads),
        source=f"{file.path} as {given.model_name}",
    )
    own |= {name: published[theirs[name]] for name in theirs if theirs[name] in published}
    for kind in ("weight", "bias"):
        own[f"head.0.{kind}"] = torch.cat(
            [published[f"pi_head.{kind}"], published[f"bin_head.{kind}"]]
        )
    model.load_state_dict(own)
    return model.eval()
