"""Make a checkpoint surer of itself: the logits of its head times a factor, occupied bins shifted.

python docs/sharpen.py CHECKPOINT OUT --factor 1.45 --shift 0.7

A block without anybody keeps a small expected count, and the thousands of them in a picture add up.
The factor makes that count many times smaller; the shift gives the bins of one head and more back
what it takes from blocks that are in doubt. docs/starter.md says where the two numbers come from.
"""

import argparse
from pathlib import Path

import torch

from crowdcount.models.checkpoint import load_checkpoint, save_checkpoint


@torch.no_grad()
def main() -> None:
    """Write the sharpened checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--factor", type=float, required=True, help="of all logits")
    parser.add_argument("--shift", type=float, required=True, help="of the bins from one head on")
    options = parser.parse_args()
    loaded = load_checkpoint(options.checkpoint)
    last = loaded.model.head[-1]
    last.weight *= options.factor
    last.bias *= options.factor
    last.bias[1:] += options.shift
    # What was measured was measured of the other weights.
    save_checkpoint(options.out, loaded.model, card={**loaded.card, "metrics": {}})
    print(options.out)


if __name__ == "__main__":
    main()
