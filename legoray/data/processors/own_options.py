"""The options of `processor: own`: which files and columns hold what."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from legoray.config import OrWord, Strict
from legoray.data.splitrule import Split
from legoray.errors import InputError, Problem

SPLITS = ("train", "valid", "test")


class ItemsTable(Strict):
    """One row per item."""

    file: str
    key: str = "item"
    attributes: list[str] | None = Field(None, description="columns to keep; all if null")


class UsersTable(Strict):
    """One row per user. Whoever has none has no values; rows of users never seen are left out."""

    file: str
    key: str = "user"
    attributes: list[str] | None = Field(None, description="columns to keep; all if null")


class HistoriesTable(Strict):
    """One row per user with all that the user clicked before the interactions, oldest first."""

    file: str
    user: str = "user"
    items: str = "items"
    separator: str = Field(" ", min_length=1, description="between items, where they are text")


class EventsTable(Strict):
    """One row per click with its time: histories end before each interaction by themselves."""

    file: str
    user: str = "user"
    item: str = "item"
    time: str = "time"


class InteractionsTable(Strict):
    """One row per shown item: who saw it in which impression, and whether it was clicked."""

    file: str | None = None
    train: str | None = Field(None, description="a file per split instead of `file`")
    valid: str | None = None
    test: str | None = None
    user: str = "user"
    item: str = "item"
    label: str = Field("label", description="1 or 0; may be missing in a test file")
    impression: str | None = Field("impression", description="one per user and time if null")
    time: str | None = "time"
    split: str | None = Field(None, description="a column that says train, valid or test")


def _file(value: Any) -> Any:
    """A file's name alone stands for a table with the default columns."""
    return {"file": value} if isinstance(value, str) else value


Short = BeforeValidator(_file)


class OwnOptions(Strict):
    """Options of `processor: own`. A table may be a file's name alone."""

    items: Annotated[ItemsTable, Short, OrWord()]
    histories: Annotated[HistoriesTable | None, Short, OrWord()] = None
    events: Annotated[EventsTable | None, Short, OrWord()] = None
    interactions: Annotated[InteractionsTable, Short, OrWord()]
    users: Annotated[UsersTable | None, Short, OrWord()] = None
    split: Split | None = Field(
        None,
        description="temporal or {temporal: 0.8/0.1/0.1}, where neither files nor a column split; "
        "otherwise official",
    )


def check_tables(options: OwnOptions) -> None:
    """What the tables need of each other.

    Raises:
        InputError: they lack it.
    """
    problems = []
    table = options.interactions
    at = "options.interactions"
    files = [getattr(table, split) for split in SPLITS]
    if (options.histories is None) == (options.events is None):
        problems.append(Problem("options", "needs either `histories` or `events`"))
    if (table.file is None) == (not any(files)):
        problems.append(Problem(at, "needs either `file`, or `train`, `valid` and `test`"))
    elif any(files) and not all(files):
        problems.append(Problem(at, "needs all three of `train`, `valid` and `test`"))
    rule = "official" if table.split or any(files) else "temporal"
    if options.split and options.split.name != rule:
        reason = (
            "files or a column say it" if rule == "official" else "neither files nor a column do"
        )
        message = f"is '{options.split.name}', expected {rule}: {reason}"
        problems.append(Problem("options.split", message))
    if table.split and any(files):
        problems.append(Problem(f"{at}.split", "is of no use where each split has its file"))
    why = None
    if options.events:
        why = "histories are made of timed events"
    elif table.file and not table.split:
        why = "neither files nor a `split` column say what is train, valid and test"
    elif table.impression is None:
        why = "there is no impression column"
    if table.time is None and why:
        problems.append(Problem(f"{at}.time", f"is null, but {why}, so a time is needed"))
    if problems:
        raise InputError(*problems)
