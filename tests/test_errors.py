"""What pydantic says, in the words of our own messages."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from alberti.errors import first_problem


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: int = Field(default=1, gt=0)
    share: float = Field(default=0.5, le=1)
    precision: Literal["no", "bf16"] = "no"
    address: Annotated[str, Field(pattern="^https://")] = "https://a"

    @model_validator(mode="after")
    def _whole(self) -> "Thing":
        if self.steps == 13:
            raise ValueError("steps: expected another number than 13")
        return self


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"steps": 0}, "steps: expected a number greater than 0, got 0"),
        ({"steps": "many"}, "steps: expected a valid integer, unable to parse string as an integer, got 'many'"),
        ({"share": 2}, "share: expected a number less than or equal to 1, got 2"),
        ({"precision": "half"}, "precision: expected 'no' or 'bf16', got 'half'"),
        ({"address": "ftp://a"}, "address: expected text that matches '^https://', got 'ftp://a'"),
        ({"colour": "red"}, "colour: there is no such key, got 'red'"),
        ({"steps": 13}, "steps: expected another number than 13"),
        (7, "thing: expected a valid dictionary or instance of Thing, got 7"),
    ],
)
def test_one_line_that_says_what_was_expected_and_what_came(values: Any, said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Thing.model_validate(values)
    assert first_problem(raised.value, "thing") == said
