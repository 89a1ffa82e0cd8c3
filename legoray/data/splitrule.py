"""How a data set is split, as its YAML says it: `official`, `temporal`, `leave-last-out`, ...

split: leave-last-out
split: temporal               # 0.8/0.1/0.1
split: {temporal: 0.7/0.1/0.2}
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, WithJsonSchema

from legoray.config import Strict
from legoray.errors import InputError, Problem, nearest

SplitName = Literal["official", "temporal", "leave-last-out", "leave-random-out"]
NAMES: tuple[str, ...] = get_args(SplitName)
SHARES = (0.8, 0.1, 0.1)


class SplitRule(Strict):
    """A rule, and for `temporal` the shares of train, valid and test."""

    name: SplitName
    shares: tuple[float, float, float] = SHARES


def parse_split(value: Any) -> Any:
    """A rule of its notation.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, SplitRule):
        return value
    if isinstance(value, dict) and list(value) == ["temporal"]:
        return SplitRule(name="temporal", shares=_shares(value["temporal"]))
    if isinstance(value, str) and value in NAMES:
        return SplitRule.model_validate({"name": value})
    near = nearest(str(value), NAMES)
    hint = f" (did you mean '{near}'?)" if near else ""
    known = ", ".join(NAMES)
    raise ValueError(f"expected one of {known}, or {{temporal: 0.8/0.1/0.1}}{hint}")


_SHARES = {"type": "string", "pattern": "^[0-9.]+/[0-9.]+/[0-9.]+$"}
_TEMPORAL = {"type": "object", "properties": {"temporal": _SHARES}, "required": ["temporal"]}
_FORMS = {"anyOf": [{"enum": list(NAMES)}, {**_TEMPORAL, "additionalProperties": False}]}
Split = Annotated[SplitRule, BeforeValidator(parse_split), WithJsonSchema(_FORMS)]


def check_split(split: SplitRule, known: tuple[str, ...], where: str = "options.split") -> None:
    """Refuse a rule that a data set cannot be split by.

    Raises:
        InputError: it is not among the known ones.
    """
    if split.name not in known:
        expected = " or ".join(known)
        raise InputError(Problem(where, f"is '{split.name}', expected {expected} for this data"))


def shares_text(shares: tuple[float, ...] | list[float]) -> str:
    """Shares as they are written."""
    return "/".join(f"{share:g}" for share in shares)


def _shares(value: Any) -> tuple[float, float, float]:
    parts = str(value).split("/") if isinstance(value, str) else value
    try:
        train, valid, test = (float(part) for part in parts)
    except (TypeError, ValueError):
        train, valid, test = 0.0, 0.0, 0.0
    fine = min(train, valid, test) > 0 and abs(train + valid + test - 1) <= 1e-6
    if not fine:
        raise ValueError(
            f"the shares are '{value}', expected three positive ones that sum to 1, such as "
            "0.8/0.1/0.1"
        )
    return train, valid, test
