"""What a search takes from earlier ones instead of training it again, and how that is told."""

from __future__ import annotations

from collections.abc import Callable

from legoray.objectives import MEASURED
from legoray.records import TrialRecord
from legoray.search.sweep import Sweep
from legoray.spaceconfig import SpaceConfig
from legoray.zoo.earlier import Earlier, look_up

Say = Callable[[str], None]


def earlier_results(sweep: Sweep, config: SpaceConfig, say: Say) -> Earlier:
    """Look once for results that may be taken, and say how many there are.

    A search that compares costs of the machine takes none: those of another do not compare.
    """
    timed = [one.name for one in config.search.objectives if one.name in MEASURED]
    if timed:
        say(f"earlier results are not taken: {', '.join(timed)} must be measured here")
        return Earlier()
    found = look_up(sweep.info, sweep.folder, config.tracking.uri)
    found.say = say
    if found.problem:
        say(found.problem)
    if len(found):
        results = "1 result" if len(found) == 1 else f"{len(found)} results"
        say(f"{results} of earlier sweeps on these data: not trained again (--no-reuse does)")
    return found


def taken_line(sweep: Sweep) -> str:
    """How many of a sweep's trainings were taken from earlier ones; empty where none was."""
    parts = []
    for phase, name in (("search", "trials"), ("final", "final trainings")):
        records = sweep.of(phase)  # type: ignore[arg-type]
        taken = sum(record.reused for record in records)
        parts += [f"{taken} of {len(records)} {name}"] if taken else []
    return f"{' and '.join(parts)} taken from earlier sweeps" if parts else ""


def taken_text(record: TrialRecord) -> str:
    """Where a record's result was measured, for its line on the screen."""
    from legoray.zoo.fields import source_text

    return f"taken from {source_text(record)}" if record.reused else ""
