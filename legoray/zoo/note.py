"""What a sweep's run says of itself in MLflow, as Markdown."""

from __future__ import annotations

from legoray.records import SweepInfo, TrialRecord
from legoray.zoo.slicetable import to_markdown


def sweep_note(sweep: SweepInfo, winner: TrialRecord | None, name: str, version: str | None) -> str:
    """Data, protocol, winner, and the commands that use the result."""
    title = sweep.data_title or sweep.data
    kind = "synthetic data, " if sweep.synthetic else ""
    lines = [
        f"### {sweep.name}: {title}",
        f"{kind}fingerprint `{sweep.fingerprint[:12]}`, selected by validation `{sweep.select}`, "
        f"seed {sweep.seed}",
    ]
    if winner is not None:
        value = winner.best.get(sweep.select)
        score = "" if value is None else f": validation {sweep.select} {value:.4f}"
        lines += ["", f"**Winner: {winner.label} (trial {winner.number})**{score}"]
    if version:
        uri = f"models:/{name}/{version}"
        lines += ["", f"    legoray recommend {uri} --history 'a title' --candidates new.txt"]
    table = to_markdown(winner.test) if winner is not None else []
    if table:
        lines += ["", "Test split of the winner, by slice:", "", *table]
    command = sweep.command or f"python run_search.py {sweep.space_file}"
    lines += ["", f"    {command}", "", "| protocol | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in sorted(sweep.protocol.items())]
    return "\n".join(lines)
