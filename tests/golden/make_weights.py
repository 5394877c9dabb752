"""Write a checkpoint in the published CLIP-EBC format, with reproducible random weights.

The published checkpoints are bare state dicts. ``<model>.keys.json`` lists the keys, shapes and
types of one; this script fills them from ``numpy.random.RandomState`` (whose streams never
change), so that a 540 MB checkpoint need not be stored to test an importer.

    python make_weights.py clip_resnet50_r8_t4 out.pth [--seed 11]
"""

import argparse
import json
import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent


def fill(
    key: str, shape: list[int], rng: np.random.RandomState, *, gain: float = 2.0
) -> np.ndarray:
    """Values that keep activations alive: fan-in scaled weights, non-trivial norms, statistics."""
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "logit_scale":
        return np.array(math.log(60.0))  # not its initial value: a loader that forgets it fails
    if leaf == "running_var" or (len(shape) == 1 and leaf == "weight"):
        return rng.uniform(0.5, 1.5, shape)
    normal = rng.standard_normal(shape)
    if leaf == "class_embedding":
        return 0.02 * normal
    if len(shape) == 1:
        return 0.1 * normal
    if "token_embedding" in key or "positional_embedding" in key:
        return 0.3 * normal
    if leaf.startswith("vpt_"):
        return 0.5 * normal
    if leaf == "text_projection":
        return normal / math.sqrt(shape[0])
    gain = gain if key.startswith("backbone.") else 1.0  # VGG has no norms: He scale
    return normal * math.sqrt(gain / math.prod(shape[1:]))


def make_weights(model: str, seed: int) -> "OrderedDict[str, torch.Tensor]":
    rng = np.random.RandomState(seed)
    gain = 1.0 if model.startswith("zip_") else 2.0  # the ZIP networks have norms
    weights = OrderedDict()
    for key, shape, dtype in json.loads((HERE / f"{model}.keys.json").read_text()):
        if "int" in dtype:
            weights[key] = torch.zeros(shape, dtype=torch.int64)
        else:
            weights[key] = torch.from_numpy(
                np.asarray(fill(key, shape, rng, gain=gain), dtype=np.float32).reshape(shape)
            )
    return weights


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    torch.save(make_weights(args.model, args.seed), args.out)
