"""Plain values, as JSON and TOML hold them, as dataclasses; what does not fit is one line."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from crowdcount.wording import first_problem

T = TypeVar("T")


def typed(kind: type[T], values: Any) -> T:
    """A dataclass of plain values, each of the type and in the range that its field wants.

    Raises:
        ValueError: If they are none; names the key of the first that is wrong.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error
