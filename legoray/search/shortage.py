"""Ray ended trials because their node ran out of memory: what to tell of it.

Ray watches each node's memory and kills its workers before the system would. Where a trial loses
its actor so, Ray Tune starts it again; where a call to an actor fails so, Tune does not know the
error and gives the whole search up. The records and checkpoints of the trials stay as they were.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from legoray.errors import Problem

_SHORT = "running low on memory"  # Ray's words, in exceptions of several kinds
_NODE = re.compile(r"IP: ([^,)]+).*? was ([\d.]+)GB used / ([\d.]+)GB limit", re.DOTALL)
_USERS = re.compile(r"^\d+\t([\d.]+)\t(.+)$", re.MULTILINE)
_MOST = 3  # processes that are named
_LONG = 60  # letters of a command
_HINT = "end other programs, or let fewer trials run at once (search.concurrent)"


def memory_problem(error: BaseException) -> Problem | None:
    """What an exception of a whole search says of a node's memory; None if it is about another."""
    for one in _chain(error):
        if told := memory_shortage(str(one)):
            return Problem(told[0], f"{told[1]}, and Ray ended the trials there", _HINT)
    return None


def memory_shortage(text: str) -> tuple[str, str] | None:
    """Which node ran out of memory and how, in Ray's long text of it; None in other texts."""
    if _SHORT not in text:
        return None
    node = _NODE.search(text)
    used = f" ({node[2]} of {node[3]} GB were used)" if node else ""
    users = [f"{size} GB {command[:_LONG]}" for size, command in _USERS.findall(text)[:_MOST]]
    most = f"; the largest processes were: {', '.join(users)}" if users else ""
    return f"node {node[1]}" if node else "a node", f"its memory ran out{used}{most}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
