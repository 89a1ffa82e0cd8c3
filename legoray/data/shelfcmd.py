"""The commands over the shared caches: what is there, and making room."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from legoray.data.shelf import Stored, finish_removals, remove, stored, to_remove
from legoray.errors import InputError, Problem

_BYTES = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SECONDS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def print_list(home: Path, console: Console) -> None:
    """The folders of the shared caches, what was used last at the end."""
    found = stored(home)
    if not found:
        console.print(f"nothing is stored in {home}", markup=False)
        return
    table = Table("key", "kind", "MB", "last used", "content", title=None, box=None)
    for one in found:
        size, used = f"{one.size / 1e6:,.1f}", _ago(time.time() - one.used)
        table.add_row(one.key[:12], one.kind, size, used, Text(one.content))
    console.print(table)
    console.print(_total(found, home), markup=False)


def prune(
    home: Path,
    *,
    keys: Sequence[str],
    keep: str | None,
    unused: str | None,
    dry_run: bool,
    say: Callable[[str], None],
) -> None:
    """Remove what the rules name, least used first.

    Args:
        home: folder of the shared caches.
        keys: see `to_remove`.
        keep: such as `10GB`.
        unused: such as `30d`.
        dry_run: only say what would go.
        say: told what goes.

    Raises:
        InputError: no rule is given, or one is not well formed.
    """
    if not keys and keep is None and unused is None:
        message = "says nothing about what to remove"
        raise InputError(Problem("legoray store prune", message, "give --keep, --unused or keys"))
    chosen = to_remove(
        stored(home),
        keys=keys,
        keep=None if keep is None else int(_number(keep, _BYTES, "--keep", "10GB")),
        unused=None if unused is None else _number(unused, _SECONDS, "--unused", "30d"),
    )
    if not dry_run:
        finish_removals(home, say)
        remove(chosen, say)
    for one in chosen:
        say(f"{'would remove' if dry_run else 'removed'} {one.key[:12]}  {one.content}")
    freed = sum(one.size for one in chosen) / 1e6
    say(f"{freed:,.1f} MB {'would be' if dry_run else 'are'} free; {_total(stored(home), home)}")


def _total(found: Sequence[Stored], home: Path) -> str:
    return f"{len(found)} folders, {sum(one.size for one in found) / 1e6:,.1f} MB in {home}"


def _number(text: str, units: dict[str, int], option: str, example: str) -> float:
    if text.strip() == "0":
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text.strip())
    folded = {unit.lower(): factor for unit, factor in units.items()}
    if match is None or match.group(2).lower() not in folded:
        known = ", ".join(units)
        raise InputError(Problem(option, f"is '{text}', expected such as {example}", known))
    return float(match.group(1)) * folded[match.group(2).lower()]


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"
