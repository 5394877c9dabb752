"""A training run that takes a second: its flags, and its settings."""

from crowdcount.config import RunConfig

TINY = "timm:test_resnet"

TIMES = ("seconds", "waiting", "images_per_second", "peak_memory")
"""Keys of a run's log that differ between two runs with the same result."""

TINY_RUN = (
    *("--backbone", TINY, "--no-pretrained", "--epochs", "1", "--batch-size", "4"),
    *("--set", "train.crop=64", "--set", "train.workers=0", "--set", "model.neck_width=8"),
)


def tiny_config(**changes: object) -> RunConfig:
    """The same settings, but for these changes: ``train__epochs=2`` for ``train.epochs``."""
    settings: dict[str, dict[str, object]] = {
        "model": {"backbone": TINY, "pretrained": "none", "neck_width": 8},
        "train": {"epochs": 1, "batch_size": 4, "crop": 64, "workers": 0},
    }
    for key, value in changes.items():
        section, name = key.split("__")
        settings.setdefault(section, {})[name] = value
    return RunConfig.from_mapping(settings)
