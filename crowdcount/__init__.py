"""Count people in photographs of crowds, and train the models that do it.

The names below are the public API. Each is loaded on first use, so that importing ``crowdcount``
alone costs nothing::

    import crowdcount as cc

    counter = cc.load("runs/latest/best")
    count = counter.count("plaza.jpg")
    print(count.total)
    count.heatmap().save("plaza_heat.png")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crowdcount.version import __version__

if TYPE_CHECKING:
    from crowdcount.config import RunConfig, load_run_config
    from crowdcount.core.bins import Bins
    from crowdcount.core.types import block_counts
    from crowdcount.data.prepared.dataset import PreparedDataset
    from crowdcount.errors import CrowdCountError
    from crowdcount.losses.dace import dace_loss
    from crowdcount.models.clip_ebc import ClipEBC
    from crowdcount.runs.folder import RunFolder
    from crowdcount.workflows.bins import make_bins
    from crowdcount.workflows.counter import Count, Counter, load
    from crowdcount.workflows.evaluate import evaluate
    from crowdcount.workflows.importing import import_checkpoint
    from crowdcount.workflows.plan import new_run_config
    from crowdcount.workflows.predict import predict
    from crowdcount.workflows.preprocess import preprocess
    from crowdcount.workflows.train import resume, train

__all__ = [
    "Bins",
    "ClipEBC",
    "Count",
    "Counter",
    "CrowdCountError",
    "PreparedDataset",
    "RunConfig",
    "RunFolder",
    "__version__",
    "block_counts",
    "dace_loss",
    "evaluate",
    "import_checkpoint",
    "load",
    "load_run_config",
    "make_bins",
    "new_run_config",
    "predict",
    "preprocess",
    "resume",
    "train",
]

_HOMES = {
    "Bins": "core.bins",
    "ClipEBC": "models.clip_ebc",
    "Count": "workflows.counter",
    "Counter": "workflows.counter",
    "CrowdCountError": "errors",
    "PreparedDataset": "data.prepared.dataset",
    "RunConfig": "config",
    "RunFolder": "runs.folder",
    "block_counts": "core.types",
    "dace_loss": "losses.dace",
    "evaluate": "workflows.evaluate",
    "import_checkpoint": "workflows.importing",
    "load": "workflows.counter",
    "load_run_config": "config",
    "make_bins": "workflows.bins",
    "new_run_config": "workflows.plan",
    "predict": "workflows.predict",
    "preprocess": "workflows.preprocess",
    "resume": "workflows.train",
    "train": "workflows.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
