"""Fusing batch normalisation into the convolutions before it, for models that only count."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from crowdcount.models.block_counter import BlockCounter

_PROBE = 96
"""Smallest side of the probe in pixels. Networks without padding, such as Inception's, need 75."""


@torch.no_grad()
def fuse_batch_norm(model: BlockCounter) -> None:
    """Fuse batch normalisation into the convolutions before it, which saves its time.

    In evaluation mode batch normalisation is a factor and an offset for each channel, so it can be
    part of the weights and bias of a convolution whose output nothing else reads. Counts change by
    rounding alone; the model can no longer be trained. A small image is run through the model to
    see which module reads which output.

    Args:
        model: The model, in evaluation mode; changed in place.
    """
    norms: dict[str, nn.BatchNorm2d] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    }
    if not norms:
        return
    for name, convolution in _convolutions_before(model, norms).items():
        norm = norms[name]
        folded = fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = folded.weight, folded.bias
        # timm's batch normalisation includes the activation that follows.
        model.set_submodule(name, getattr(norm, "act", nn.Identity()))


def _convolutions_before(
    model: BlockCounter, norms: dict[str, nn.BatchNorm2d]
) -> dict[str, nn.Conv2d]:
    """Map the name of each batch normalisation to the convolution whose only reader it is.

    Operations that are not modules are not seen. An operation between convolution and norm, like
    the upsampling in the first block of CLIP's decoder, makes another tensor, so these two are not
    fused. No network here has such an operation beside a norm.
    """
    # Keeps the outputs alive, so that their identities stay unique.
    outputs: list[tuple[Tensor, nn.Conv2d]] = []
    readers: dict[nn.Conv2d, list[str]] = {}

    def note_output(convolution: nn.Conv2d, _: object, output: Tensor) -> None:
        outputs.append((output, convolution))

    def note_input(name: str, _: object, inputs: tuple[object, ...]) -> None:
        for output, convolution in outputs:
            if any(output is value for value in inputs):
                readers.setdefault(convolution, []).append(name)

    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(note_output))
        if name in norms or not any(module.children()):
            hooks.append(module.register_forward_pre_hook(partial(note_input, name)))
    side = model.stride * -(-_PROBE // model.stride)
    try:
        model(torch.zeros(1, 3, side, side, device=model.mean.device))
    finally:
        for hook in hooks:
            hook.remove()
    return {
        names[0]: convolution
        for convolution, names in readers.items()
        if len(names) == 1 and names[0] in norms
    }
