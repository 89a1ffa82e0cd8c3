"""The report's tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from legoray.pages.blocks import Cell
from legoray.records import TrialRecord
from legoray.search.display import NAMES, span
from legoray.search.report.gather import Facts
from legoray.zoo.board import Row, settings_text
from legoray.zoo.boardtext import MEMBER, count_text
from legoray.zoo.comparison import Pair
from legoray.zoo.verdicts import small

NONE = ""
LONG = ("settings", "reason")
WORDS = ("model", "front", "settings", "status", "reason", "node", "is", "than", "alike")
COSTS: tuple[tuple[str, str, str], ...] = (
    ("seconds", "seconds", ".1f"),
    ("parameters", "parameters", "count"),
    ("trained", "trainable", "count"),
    ("memory (MiB)", "memory_mb", ".0f"),
    ("latency (ms / 1,000)", "latency_ms", ".2f"),
)


@dataclass(frozen=True)
class Table:
    """Columns, rows, and rows that stay below them."""

    head: list[str]
    rows: list[list[Cell]]
    below: list[list[Cell]]


def leaderboard(facts: Facts) -> Table | None:
    """All configurations, with every metric and cost; columns that would be empty are left out."""
    board = facts.board
    if board is None or not board.rows:
        return None

    def measured(names: Sequence[str]) -> Iterator[tuple[str, Callable[[Row], Cell]]]:
        for split, cell in (("valid", _valid), ("test", _test)):
            yield from ((f"{split} {name}", cell(name)) for name in names)

    epochs = {record.number: len(record.epochs) for record in facts.records}
    columns: list[tuple[str, Callable[[Row], Cell]]] = [
        ("#", lambda row: _number(row.rank, "d")),
        ("model", lambda row: Cell(row.label)),
        ("front", lambda row: Cell(MEMBER if row.pareto else NONE)),
        *measured(board.metrics[:1]),
        ("settings", lambda row: Cell(row.settings)),
        *((title, _cost(name, form)) for title, name, form in COSTS),
        ("epochs", lambda row: _number(epochs.get(row.trial) or None, "d")),
        ("trial", lambda row: NO_CELL if row.baseline else _number(row.trial, "d")),
        (
            "status",
            lambda row: Cell("baseline" if row.baseline else NAMES.get(row.status, row.status)),
        ),
        *measured(board.metrics[1:]),
    ]
    rows = [[cell(row) for _, cell in columns] for row in board.rows]
    below = [[cell(row) for _, cell in columns] for row in board.baselines]
    kept = [
        place for place in range(len(columns)) if any(line[place].text for line in rows + below)
    ]
    return Table(
        [columns[place][0] for place in kept],
        [[line[place] for place in kept] for line in rows],
        [[line[place] for place in kept] for line in below],
    )


NO_CELL = Cell(NONE)


def _number(value: float | None, form: str) -> Cell:
    if value is None:
        return NO_CELL
    return Cell(count_text(value) if form == "count" else f"{value:{form}}", value)


def _valid(name: str) -> Callable[[Row], Cell]:
    return lambda row: _number(row.valid.get(name), ".4f")


def _test(name: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        spread = row.test.get(name)
        if spread is None:
            return NO_CELL
        more = "" if spread.std is None else f" ± {spread.std:.4f}"
        return Cell(f"{spread.mean:.4f}{more}", spread.mean)

    return cell


def _cost(name: str, form: str) -> Callable[[Row], Cell]:
    return lambda row: _number(row.costs.get(name), form)


def failures(facts: Facts) -> Table | None:
    """What failed or cannot be trained, with its reason."""
    rows = [
        [
            Cell(f"{'final' if r.phase == 'final' else 'trial'} {r.number}", r.number),
            Cell(r.label),
            Cell(NAMES[r.status]),
            Cell(r.reason.strip() or "no reason given"),
            Cell(settings_text(r.params)),
        ]
        for r in facts.records
        if r.status in ("failed", "infeasible")
    ]
    return Table(["trial", "model", "status", "reason", "settings"], rows, []) if rows else None


def compared(facts: Facts) -> tuple[Table, Table] | None:
    """The models that were compared, and each pair of them."""
    found = facts.comparison
    if found is None or not found.compared:
        return None
    models = [
        [
            Cell(one.label),
            _number(len(one.seeds) or None, "d"),
            _number(one.mean.get(found.metric), ".4f"),
            Cell(one.letters),
        ]
        for one in found.compared
    ]
    pairs = [_pair(pair) for pair in found.pairs]
    share = f"{found.level:.0%}"
    return (
        Table(["model", "seeds", f"test {found.metric}", "alike"], models, []),
        Table(["model", "is", "than", "difference", f"{share} interval", "p (Holm)"], pairs, []),
    )


def _pair(pair: Pair) -> list[Cell]:
    return [
        Cell(pair.label_a),
        Cell({"better": "better", "worse": "worse", "tie": "a tie with"}[pair.verdict]),
        Cell(pair.label_b),
        _number(pair.difference, "+.4f"),
        Cell(f"{pair.low:+.4f} to {pair.high:+.4f}", pair.low),
        Cell(small(pair.p_holm), pair.p_holm),
    ]


def environment(facts: Facts) -> Iterator[tuple[str, str]]:
    """On what it ran."""
    info = facts.info
    named = {"training": "digest of the training code"}
    yield from ((named.get(name, name), found) for name, found in info.versions.items())
    if info.git_revision:
        yield "git revision of LegoRay", info.git_revision
    if info.machine:
        yield "started on", info.machine
    if info.cluster:
        yield "Ray cluster", info.cluster
    nodes = Counter(record.node for record in facts.records if record.node)
    for node, count in nodes.most_common():
        yield f"node {node}", f"{count} training{'' if count == 1 else 's'}"


def protocol(facts: Facts) -> Iterator[tuple[str, str]]:
    """What was measured on what: two sweeps compare where all of this is equal."""
    info = facts.info
    yield "data", f"{info.data_title or info.data} ({info.data})"
    yield "fingerprint", info.fingerprint
    if info.text:
        yield "texts", ", ".join(info.text)
    for name, print_ in info.written.items():
        yield f"written later: {name}", print_
    for name, value in info.protocol.items():
        yield name.replace("_", " "), str(value)
    yield "selected by", f"validation {info.select}, the best epoch of each training"
    yield "seed", str(info.seed)


def asked(facts: Facts) -> Iterator[tuple[str, str]]:
    """How it was searched."""
    search = facts.settings.get("search") or {}
    for name in ("trials", "epochs", "hours", "sampler", "scheduler", "objectives", "concurrent",
                 "workers", "cpus_per_worker", "gpus_per_worker"):  # fmt: skip
        if search.get(name) is not None:
            yield name.replace("_", " "), _plain(search[name])


def _plain(value: object) -> str:
    if isinstance(value, dict):
        name = f"{value['name']} " if "name" in value else ""
        rest = ", ".join(f"{k} {_plain(v)}" for k, v in value.items() if k != "name")
        return f"{name}({rest})".replace(" ()", "") if name else rest
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value)
    return str(value)


def tiles(facts: Facts, epochs: int, hours: float) -> Iterator[tuple[str, str]]:
    """The numbers at the top."""
    count = facts.counts
    ended = sum(count[s] for s in ("completed", "pruned", "infeasible", "failed"))
    yield "trials ended", str(ended)
    for status in ("completed", "pruned", "infeasible", "failed", "interrupted", "running"):
        if count[status]:
            yield NAMES.get(status, status), str(count[status])
    reused = sum(record.reused for record in facts.records)
    if reused:
        yield "reused", str(reused)
    yield "epochs trained", f"{epochs:,}"
    yield "of training", span(3600 * hours)


def of_winner(facts: Facts, record: TrialRecord) -> Iterator[tuple[str, str]]:
    """The winner's numbers."""
    select = facts.select
    yield f"validation {select}", f"{record.best[select]:.4f}"
    summary = next((s for s in facts.summaries if s.label == record.label), None)
    if record.phase == "final" and summary is not None and select in summary.mean:
        spread = f" ± {summary.std[select]:.4f}" if summary.seeds > 1 else ""
        over = f" over {summary.seeds} seeds" if summary.seeds > 1 else ""
        yield f"test {select}", f"{summary.mean[select]:.4f}{spread}{over}"
    for title, name, form in COSTS:
        cell = _number(record.costs.get(name), form)
        if cell.text:
            yield title, cell.text
    train = record.config.get("train", {})
    yield "hidden size", str(record.config["model"].get("hidden_size", ""))
    for name in ("learning_rate", "batch_size", "epochs"):
        if name in train:
            value = train[name]
            yield name.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value)
