"""Settings are refused wherever they come from, in one wording that names them."""

import dataclasses
import math
import pickle
from typing import Annotated, Any, Literal, Self

import pytest
from pydantic import Field, model_validator

from crowdcount.core.settings import (
    OR_NONE,
    NonEmptyText,
    PositiveInt,
    Probability,
    check_choice,
    expected,
    field_type,
    from_text,
    parse,
    settings,
)
from crowdcount.errors import ConfigError


@settings("crowd.rows")
class Rows:
    sizes: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = (1, 2)


@settings("crowd")
class Crowd:
    name: NonEmptyText = "plaza"
    people: PositiveInt = 3
    density: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    share: Probability = 0.5
    kind: Literal["dense", "sparse", "none"] = "dense"
    shown: bool = False
    later: Annotated[int, OR_NONE] = None
    rows: Rows = dataclasses.field(default_factory=Rows)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "sparse" and self.people > 100:
            raise ConfigError("crowd.people: too many for a sparse crowd")
        return self


WRONG = [
    ({"people": 0}, "people: expected a whole number of at least 1, got 0"),
    ({"people": True}, "people: expected a whole number of at least 1, got true"),
    ({"people": 2.5}, "people: expected a whole number of at least 1, got 2.5"),
    ({"density": -1.0}, "density: expected a number above 0 or none, got -1.0"),
    ({"density": math.inf}, "density: expected a finite number above 0 or none, got inf"),
    ({"share": 1.5}, "share: expected a number from 0 to 1, got 1.5"),
    ({"kind": "dens"}, "kind: expected dense, sparse or none, got 'dens'; did you mean 'dense'?"),
    ({"kind": None}, "kind: expected dense, sparse or none, got none"),
    ({"shown": 1}, "shown: expected true or false, got 1"),
    ({"name": ""}, "name: expected text that is not empty, got ''"),
    ({"name": 2024}, "name: expected text that is not empty, got 2024"),
    ({"poeple": 2}, "poeple: no such setting; did you mean 'people'?"),
    ({"rows": 3}, "rows: expected a table of settings, got 3"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_python_and_files_are_refused_in_the_same_words(values, message):
    with pytest.raises(ConfigError) as caught:
        Crowd(**values)
    assert caught.value.message == f"crowd.{message}"
    with pytest.raises(ValueError, match=r".") as caught:
        parse(Crowd, values)
    assert str(caught.value) == message


def test_settings_within_settings_are_named_in_full():
    with pytest.raises(ConfigError, match=r"^crowd\.rows\.sizes\.1: .*, got 0$"):
        Rows(sizes=(1, 0))
    with pytest.raises(ValueError, match=r"^rows\.sizes\.1: .*, got 0$"):
        parse(Crowd, {"rows": {"sizes": [1, 0]}})
    with pytest.raises(ValueError, match=r"^rows\.size: .* did you mean 'sizes'"):
        parse(Crowd, {"rows": {"size": [1]}})


def test_a_rule_over_several_settings_holds_in_python_in_files_and_in_replacements():
    made = [
        lambda: Crowd(kind="sparse", people=101),
        lambda: parse(Crowd, {"kind": "sparse", "people": 101}),
        lambda: dataclasses.replace(Crowd(people=101), kind="sparse"),
    ]
    for make in made:
        with pytest.raises(ConfigError, match="too many"):
            make()


def test_settings_are_plain_frozen_values():
    crowd = Crowd(density=2, rows=Rows(sizes=(4,)))
    assert parse(Crowd, {"density": 2, "rows": {"sizes": [4]}}) == crowd
    assert pickle.loads(pickle.dumps(crowd)) == crowd
    assert dataclasses.replace(crowd, people=4).people == 4
    assert len({crowd, Crowd(density=2.0, rows=Rows(sizes=(4,)))}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        crowd.people = 4


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("name", "2024", "2024"),
        ("name", "2026-11-24", "2026-11-24"),
        ("name", "none", "none"),
        ("name", "true", "true"),
        ("people", "1_000", 1000),
        ("people", "true", "true"),
        ("people", "many", "many"),
        ("density", "1e-4", 1e-4),
        ("density", "3", 3.0),
        ("density", "none", None),
        ("later", "none", None),
        ("kind", "none", "none"),
        ("shown", "true", True),
        ("rows.sizes", "[1, 6]", [1, 6]),
        ("rows", "{sizes = [6]}", {"sizes": [6]}),
        ("rows", "[1", "[1"),
    ],
)
def test_the_type_of_a_setting_decides_how_text_is_read(key, text, value):
    read = from_text(field_type(Crowd, key.split(".")), text)
    assert (read, type(read)) == (value, type(value))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    x: int
    y: int = 0

    def __post_init__(self):
        if self.x < 0:
            raise ValueError("left of everything")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square:
    places: tuple[Place, ...]
    name: str = ""
    sizes: tuple[float, ...] = ()
    more: dict[str, Any] = dataclasses.field(default_factory=dict)


def test_plain_values_become_dataclasses_within_dataclasses():
    values = {"places": [{"x": 1, "y": 2}, {"x": 3}], "sizes": [1, 2.5], "more": {"a": [None]}}
    places = (Place(x=1, y=2), Place(x=3))
    assert parse(Square, values) == Square(places=places, sizes=(1.0, 2.5), more={"a": [None]})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "expected a table of settings, got "),
        ({}, "places: is missing"),
        (
            {"places": [{"x": 1}, {"x": "one"}]},
            "places.1.x: expected a whole number, got 'one'",
        ),
        ({"places": [{"x": 0.5}]}, "places.0.x: "),
        ({"places": [{"x": -1}]}, "places.0: left of everything"),
        ({"places": [], "name": ["x"]}, "name: expected text, got ['x']"),
        ({"places": [], "name": "\ud800"}, ""),
    ],
)
def test_the_first_wrong_key_is_named(values, message):
    with pytest.raises(ValueError, match=r".") as caught:
        parse(Square, values)
    assert str(caught.value).startswith(message)


def test_a_choice_that_is_no_field_is_refused_in_the_same_words():
    with pytest.raises(ConfigError, match=r"^--size: expected S or M, got 'XM'; did you mean 'M'"):
        check_choice("--size", "XM", ["S", "M"])
    assert expected(Annotated[int, Field(ge=1, lt=4)]) == "a whole number of at least 1 and below 4"
