"""Plain values, as JSON and TOML hold them, as dataclasses; what does not fit is one line."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

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


def first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found: ``bins.2.value: Input should be a valid number``."""
    problem = error.errors()[0]
    what = problem["msg"].removeprefix("Value error, ")
    return ": ".join(filter(None, [".".join(map(str, problem["loc"])), what]))
