"""The same bits again, on a GPU too."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic(asked: bool = True) -> Iterator[None]:
    """Use algorithms that give the same bits every time, and refuse what has none.

    Needed on CUDA alone, where sums are otherwise taken in the order in which threads happen to
    finish; it costs speed. On leaving, everything is as before, apart from the workspace setting of
    cuBLAS, which counts only before its first use in a process.
    """
    if not asked:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    # cuBLAS gives the same bits only with a workspace of a fixed size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
