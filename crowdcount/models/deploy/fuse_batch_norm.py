"""Batch normalisation as part of the convolutions before it, for models that only count."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from crowdcount.models.block_counter import BlockCounter


@torch.no_grad()
def fold_batch_norm(model: BlockCounter) -> None:
    """Let convolutions do what the batch normalisation after them does, which saves its time.

    In evaluation mode batch normalisation is one factor and one offset for each channel, so it can
    be a part of the weights and biases of the convolution whose output it alone reads. Counts stay
    the same but for rounding; the model can no longer be trained as it was. Which module reads
    whose output is seen on a small image.

    Args:
        model: In evaluation mode. It is changed in place.
    """
    norms = {name: each for name, each in model.named_modules() if _is_norm(each)}
    if not norms:
        return
    for name, convolution in _convolutions_before(model, norms).items():
        norm = norms[name]
        folded = fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = folded.weight, folded.bias
        # timm's carries the activation that follows.
        model.set_submodule(name, getattr(norm, "act", nn.Identity()))


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


def _convolutions_before(model: BlockCounter, norms: dict[str, nn.Module]) -> dict[str, nn.Conv2d]:
    """By the name of a batch normalisation: the convolution whose output it, and it alone, reads.

    Operations that are no modules are not seen. One on such an output, as the enlargement in the
    first block of CLIP's decoder, keeps the two apart; no network here has one beside the norm.
    """
    made: list[tuple[Tensor, nn.Conv2d]] = []  # holds the outputs, so that each stays itself
    readers: dict[nn.Conv2d, list[str]] = {}

    def note_output(convolution: nn.Conv2d, _: object, output: Tensor) -> None:
        made.append((output, convolution))

    def note_input(name: str, _: object, inputs: tuple[object, ...]) -> None:
        for output, convolution in made:
            if any(output is each for each in inputs):
                readers.setdefault(convolution, []).append(name)

    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(note_output))
        if name in norms or not any(module.children()):
            hooks.append(module.register_forward_pre_hook(partial(note_input, name)))
    try:
        model(torch.zeros(1, 3, model.stride, model.stride, device=model.mean.device))
    finally:
        for hook in hooks:
            hook.remove()
    return {
        names[0]: convolution
        for convolution, names in readers.items()
        if len(names) == 1 and names[0] in norms
    }
