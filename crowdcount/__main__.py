"""``python -m crowdcount``."""

from crowdcount.cli import main

if __name__ == "__main__":
    main()
