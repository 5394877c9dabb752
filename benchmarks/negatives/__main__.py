"""Write rendered pictures without people, for training beside real data.

python -m benchmarks.negatives FOLDER --images 200 [--seed 0]

Then prepare the folder with ``crowdcount preprocess``, and add it to the data of training.
Kinds that ``robustness.py`` calls unseen are not among them.
"""

import argparse
from pathlib import Path

from benchmarks.negatives import write_negatives


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_negatives(options.folder, images=options.images, seed=options.seed)


if __name__ == "__main__":
    main()
