"""How long work tells whoever started it how far it is."""

from collections.abc import Iterable
from typing import Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")


@runtime_checkable
class Track(Protocol):
    """Wraps what a loop goes over, as ``rich.progress.track`` does."""

    def __call__(
        self, items: Iterable[Item], *, label: str, total: int | None = None
    ) -> Iterable[Item]:
        """Yield the items in their order, showing how many are done.

        Args:
            items: What the loop goes over.
            label: What is being done, such as ``preprocess sha``.
            total: How many items there are, where ``items`` has no length.
        """
        ...


def untracked(
    items: Iterable[Item],
    *,
    label: str,  # noqa: ARG001 - the signature is that of Track
    total: int | None = None,  # noqa: ARG001
) -> Iterable[Item]:
    """The default: show nothing."""
    return items
