"""Settings: frozen dataclasses that refuse wrong values, and the messages about these.

The type of a field says what it accepts: ``Literal`` its choices, ``Annotated[int, Field(ge=1)]``
its range. Pydantic checks it wherever a value comes from: Python, TOML, JSON or text.
"""

import dataclasses
import functools
import operator
import tomllib
import types
from collections.abc import Callable, Iterable, Mapping
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import pydantic
import pydantic.dataclasses
import pydantic_core
from pydantic import ConfigDict, Field, TypeAdapter

from crowdcount.errors import ConfigError
from crowdcount.wording import did_you_mean

T = TypeVar("T")

STRICT = ConfigDict(strict=True, extra="forbid")
"""True is not 1, text is not a number, and unknown keys are refused."""

Probability = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
NaturalInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
NonEmptyText = Annotated[str, Field(min_length=1)]

OR_NONE = pydantic.WrapValidator(lambda value, check: None if value is None else check(value))
"""Allows None in a field that has a value only once its settings are resolved."""


@dataclass_transform(
    kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,)
)
def settings(section: str) -> Callable[[type[T]], type[T]]:
    """Make a class a frozen, keyword-only dataclass that raises ConfigError for wrong values.

    A rule over several fields is a method with ``pydantic.model_validator(mode="after")``, which
    raises ConfigError, or ValueError with a message.

    Args:
        section: The table of a run file that holds these settings, named in every message.
    """

    def decorate(cls: type[T]) -> type[T]:
        kind: Any = pydantic.dataclasses.dataclass(cls, frozen=True, kw_only=True, config=STRICT)
        construct = kind.__init__

        @functools.wraps(construct)
        def checked(self: Any, **values: Any) -> None:
            try:
                construct(self, **values)
            except pydantic.ValidationError as error:
                raise ConfigError(explain(error, kind, section=section)) from error

        kind.__init__ = checked
        return cast(type[T], kind)

    return decorate


def parse(kind: type[T], values: Any) -> T:
    """Build a dataclass from plain values, as JSON and TOML hold them.

    Raises:
        ValueError: If a value does not fit; names the first key that is wrong.
        ConfigError: If values contradict each other.
    """
    try:
        # In JSON a list is a tuple and a table a dataclass, even where types are strict.
        return cast(T, _adapter(cast(Any, kind)).validate_json(pydantic_core.to_json(values)))
    except pydantic.ValidationError as error:
        raise ValueError(explain(error, kind)) from error


@functools.cache
def _adapter(kind: Any) -> Any:
    """Return the parser of a type, which takes milliseconds to make."""
    return TypeAdapter(kind)


def explain(error: pydantic.ValidationError, kind: Any, *, section: str = "") -> str:
    """Word the first problem that pydantic found in a value for the type ``kind``.

    Names the setting, with ``section`` before it, the expected and the given value.
    """
    problem = error.errors(include_url=False)[0]
    path = [str(part) for part in problem["loc"]]
    name = ".".join(filter(None, [section, *path]))
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        choices = field_types(field_type(kind, path[:-1]))
        hint = did_you_mean(path[-1], choices) or f"; choose from: {', '.join(choices)}"
        return f"{name}: no such setting{hint}"
    if problem["type"] in ("missing", "missing_keyword_only_argument", "missing_argument"):
        return f"{name}: is missing"
    target = field_type(kind, path)
    if target is None or problem["type"] in ("value_error", "assertion_error"):
        text = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        text = text.replace("Input should be", "expected")
        return f"{name}: {text}" if name else text
    value = problem["input"]
    words = expected(target)
    if problem["type"] == "finite_number":
        words = words.replace("number", "finite number", 1)
    hint = did_you_mean(value, choices_of(target)) if isinstance(value, str) else ""
    text = f"expected {words}, got {_shown(value)}{hint}"
    return f"{name}: {text}" if name else text


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a value of the setting or flag ``name`` that is not one of ``choices``.

    Raises:
        ConfigError: If it is not.
    """
    choices = list(choices)
    if value not in choices:
        hint = did_you_mean(value, choices)
        raise ConfigError(f"{name}: expected {_listed(choices)}, got {value!r}{hint}")


def expected(kind: Any) -> str:
    """Describe the values that a field type accepts, such as ``a whole number of at least 1``."""
    base, limits, optional = _parts(kind)
    return _described(base, limits) + (" or none" if optional else "")


def choices_of(kind: Any) -> tuple[str, ...]:
    """Return the choices of a ``Literal`` field; none for other types."""
    base, _, _ = _parts(kind)
    return tuple(map(str, get_args(base))) if get_origin(base) is Literal else ()


def field_types(kind: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields by name, with their limits; none for other types."""
    if not dataclasses.is_dataclass(kind):
        return {}
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def field_type(kind: Any, path: Iterable[str]) -> Any:
    """Return the type at a path of keys and indices below ``kind``; None where there is none."""
    for key in path:
        base, _, _ = _parts(kind)
        arguments = get_args(base)
        if dataclasses.is_dataclass(base):
            kind = field_types(base).get(key)
        elif get_origin(base) in (tuple, list) and key.isdigit():
            kind = arguments[0]
        elif get_origin(base) in (dict, Mapping) or base in (dict, Mapping):
            kind = arguments[1] if len(arguments) == 2 else None
        else:
            return None
    return kind


def from_text(kind: Any, text: str) -> Any:
    """Convert the text of a flag or an environment variable to the type of its setting.

    ``none`` unsets an optional setting. Text that cannot be converted stays text, which the setting
    then refuses by name.
    """
    base, _, optional = _parts(kind)
    if optional and text == "none" and "none" not in choices_of(kind):
        return None
    if base is str or get_origin(base) is Literal:
        return text
    try:
        if base in (bool, int, float):
            return TypeAdapter(base).validate_strings(text)
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _parts(kind: Any) -> tuple[Any, dict[str, Any], bool]:
    """Split a type into its base, its limits (``ge``, ``lt``, ...) and whether None is allowed."""
    limits: dict[str, Any] = {}
    optional = False
    while True:
        if get_origin(kind) is Annotated:
            kind, *metadata = get_args(kind)
            optional = optional or OR_NONE in metadata
            for entry in metadata:
                for limit in getattr(entry, "metadata", [entry]):
                    names = ("ge", "gt", "le", "lt", "min_length")
                    limits |= {key: getattr(limit, key) for key in names if hasattr(limit, key)}
        elif get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind):
            optional = True
            members = (member for member in get_args(kind) if member is not type(None))
            kind = functools.reduce(operator.or_, members)
        else:
            return kind, limits, optional


def _described(base: Any, limits: Mapping[str, Any]) -> str:
    if get_origin(base) is Literal:
        return _listed(list(map(str, get_args(base))))
    if get_origin(base) in (tuple, list):
        item = get_args(base)[0]
        return f"a list, each entry {expected(item)}"
    if base is str:
        return "text" + (" that is not empty" if limits.get("min_length") else "")
    if dataclasses.is_dataclass(base) or get_origin(base) in (dict, Mapping):
        return "a table of settings"
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    return words.get(base, getattr(base, "__name__", str(base))) + _range(limits)


def _range(limits: Mapping[str, Any]) -> str:
    """Word limits: `` from 0 to 1``, `` of at least 1``, `` above 0 and at most 100``."""
    if "ge" in limits and "le" in limits:
        return f" from {limits['ge']} to {limits['le']}"
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    parts = [f"{word} {limits[key]}" for key, word in words.items() if key in limits]
    return f" {' and '.join(parts)}" if parts else ""


def _listed(choices: list[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else choices[0]


def _shown(value: Any) -> str:
    """Write a value as in a run file."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return repr(value)
