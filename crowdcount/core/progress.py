"""Progress reporting: the ``Track`` protocol and its silent default."""

from collections.abc import Iterable
from typing import Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")


@runtime_checkable
class Track(Protocol):
    """A function that wraps the items of a loop, as ``rich.progress.track`` does."""

    def __call__(
        self, items: Iterable[Item], *, label: str, total: int | None = None
    ) -> Iterable[Item]:
        """Yield the items in order and show how many are done.

        Args:
            items: The items.
            label: Name of the work, such as ``preprocess sha``.
            total: Number of items, where ``items`` has no length.
        """
        ...


def untracked(
    items: Iterable[Item],
    *,
    label: str,  # noqa: ARG001 - the signature is that of Track
    total: int | None = None,  # noqa: ARG001
) -> Iterable[Item]:
    """Return the items and show nothing."""
    return items
