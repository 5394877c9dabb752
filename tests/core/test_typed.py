from dataclasses import dataclass, field

import pytest

from crowdcount.core.typed import typed


@dataclass(frozen=True, kw_only=True)
class Place:
    x: int
    y: int = 0

    def __post_init__(self):
        if self.x < 0:
            raise ValueError("left of everything")


@dataclass(frozen=True, kw_only=True)
class Crowd:
    places: tuple[Place, ...]
    name: str = ""
    sizes: tuple[float, ...] = field(default=())


def test_plain_values_become_dataclasses_within_dataclasses():
    values = {"places": [{"x": 1, "y": 2}, {"x": 3}], "sizes": [1, 2.5]}
    crowd = Crowd(places=(Place(x=1, y=2), Place(x=3)), sizes=(1.0, 2.5))
    assert typed(Crowd, values) == crowd


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "dictionary"),
        ({}, "^places: Field required"),
        ({"places": [{"x": 1}, {"x": "one"}]}, r"^places\.1\.x: Input should be a valid integer"),
        ({"places": [{"x": 0.5}]}, r"^places\.0\.x: "),
        ({"places": [{"x": -1}]}, r"^places\.0: left of everything$"),
        ({"places": [], "sizes": [10**400]}, r"^sizes\.0: "),
        ({"places": [], "name": ["x"]}, "^name: Input should be a valid string"),
    ],
)
def test_the_first_wrong_key_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        typed(Crowd, values)
