"""Results of earlier sweeps: found once, taken instead of training the same again.

Two trainings are the same where their key is (`trial_key`: configuration with its epochs and seed,
data fingerprint, protocol, texts read) and what computes them is: the code that trains and
measures, to the letter (`legoray.train.version`), and torch, transformers and peft up to their
minor version. Hardware and the number of workers do not count: numbers then differ by rounding.
Parts of one's own (`module:Class`) are trained each time, since their code lies elsewhere and may
have changed under the same name.

Only what ran to its end is taken. What was stopped early would have to be trained further, what
failed may succeed on another machine.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legoray.errors import InputError
from legoray.records import Metrics, Phase, SweepInfo, TrialRecord, read_json, read_trials
from legoray.train.groupvalues import FILE
from legoray.zoo import fields
from legoray.zoo.locate import located
from legoray.zoo.state import FILE as TRACKING
from legoray.zoo.state import TrackingState
from legoray.zoo.store import SQLITE, all_runs, open_zoo, resolve_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

COMPUTED_BY = ("torch", "transformers", "peft")


@dataclass(frozen=True)
class Result:
    """A training that was measured elsewhere, with its model in its place."""

    epochs: list[Metrics]
    best: Metrics
    test: Metrics
    costs: Metrics
    reason: str
    source: dict[str, str]  # sweep, trial, and the run in MLflow where it is known

    def changes(self) -> dict[str, Any]:
        """The fields of a record that it settles."""
        own = {name: getattr(self, name) for name in ("epochs", "best", "test", "costs", "reason")}
        return {**own, "source": self.source, "reused": True, "status": "completed"}


class Unfetched(Exception):
    """A result is known, and its model cannot be had."""


@dataclass(frozen=True)
class _InFolder:
    """A record in the folder of another sweep."""

    sweep: SweepInfo
    folder: Path
    record: TrialRecord
    run: str

    @property
    def phase(self) -> str:
        return self.record.phase

    def take(self, target: Path, *, tested: bool) -> Result | None:
        record = self.record
        model = self.folder / "models" / record.key / "best"
        if not _placed(model, target, tested=tested):
            return None
        source = {"sweep": self.sweep.name, "trial": str(record.number), "run": self.run}
        kept = ("epochs", "best", "costs", "reason")
        values = {name: getattr(record, name) for name in kept}
        test = record.test if tested else {}
        return Result(**values, test=test, source={k: v for k, v in source.items() if v})


@dataclass(frozen=True)
class _InMlflow:
    """A run of MLflow; what a search for runs does not tell is asked for when it is taken."""

    client: MlflowClient
    uri: str
    run: Run

    @property
    def phase(self) -> str:
        return str(self.run.data.tags.get("phase", ""))

    def take(self, target: Path, *, tested: bool) -> Result | None:
        outputs = self.run.outputs.model_outputs if self.run.outputs else []
        if not outputs:
            return None
        try:
            with located(f"models:/{outputs[-1].model_id}", self.uri) as model:
                if not _placed(model, target, tested=tested):
                    return None
            epochs = self._epochs()
        except Exception as error:  # whatever MLflow raises: then it is trained
            shutil.rmtree(target, ignore_errors=True)
            raise Unfetched(
                str(error).splitlines()[0] if str(error) else type(error).__name__
            ) from None
        metrics, tags = self.run.data.metrics, self.run.data.tags
        best = _named(metrics, "best")
        best = next((e for e in epochs if e["epoch"] == best.get("epoch")), best)
        source = {"sweep": tags.get("sweep", ""), "trial": tags.get(fields.NUMBER, "")}
        return Result(
            epochs=epochs,
            best=best,
            test=_named(metrics, "test") if tested else {},
            costs=_named(metrics, "cost"),
            reason=tags.get("reason", ""),
            source={**source, "run": str(self.run.info.run_id)},
        )

    def _epochs(self) -> list[Metrics]:
        """The metrics of every epoch, in order."""
        rows: dict[int, Metrics] = {}
        for key in self.run.data.metrics:
            if key.partition("/")[0] in ("train", "valid", "speed"):
                for point in self.client.get_metric_history(self.run.info.run_id, key):
                    row = rows.setdefault(point.step, {"epoch": float(point.step)})
                    row[fields.metric_name(key)] = point.value
        return [rows[step] for step in sorted(rows)]


@dataclass
class Earlier:
    """What earlier sweeps measured under a sweep's data, protocol and versions, by key."""

    found: dict[str, list[_InFolder | _InMlflow]] = field(default_factory=dict)
    problem: str = ""  # why a store could not be asked
    say: Callable[[str], None] = print  # told of a result that cannot be fetched

    def __len__(self) -> int:
        return len(self.found)

    def take(
        self, key: str, phase: Phase, config: Mapping[str, Any], target: Path, *, test: bool
    ) -> Result | None:
        """A result for a training; None where it has to be trained.

        Args:
            key: the training's.
            phase: a final training takes nothing but one that was tested, where there is a test.
            config: the training's.
            target: where its model goes, linked or copied.
            test: whether the split is there to be measured.
        """
        if own_parts(config):
            return None
        tested = phase == "final" and test
        for one in self.found.get(key, ()):
            if tested and one.phase != "final":
                continue
            try:
                result = one.take(target, tested=tested)
            except Unfetched as error:
                self.say(f"an earlier result cannot be fetched and is trained again: {error}")
                continue
            if result is not None and result.epochs and (result.test or not tested):
                return result
        return None


def own_parts(config: Mapping[str, Any]) -> bool:
    """Whether a model has parts of the user's own, wherever they stand."""
    return any(
        path.rpartition(".")[2] == "name" and ":" in value
        for path, value in fields.flatten(config.get("model", {}))
    )


def look_up(sweep: SweepInfo, folder: Path, tracking: str) -> Earlier:
    """Find what a sweep may take: in the folders beside its own, and with one question in MLflow.

    Args:
        sweep: whose data, protocol and versions count.
        folder: of the sweep; others are looked for beside it.
        tracking: MLflow's address; a database that is not there holds nothing.
    """
    earlier = Earlier()
    for one in _beside(sweep, folder):
        earlier.found.setdefault(one.record.key, []).append(one)
    try:
        for run in _runs(sweep, tracking):
            earlier.found.setdefault(run.run.data.tags[fields.TRIAL_KEY], []).append(run)
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        earlier.problem = f"nothing is taken from {tracking}: {first[:200]}"
    return earlier


def same_computation(ours: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    """Whether two sweeps' numbers come from the same training code and libraries."""
    if ours.get("training") != theirs.get("training") or "training" not in ours:
        return False
    return all(_minor(ours.get(name)) == _minor(theirs.get(name)) for name in COMPUTED_BY)


def _minor(version: str | None) -> list[str]:
    return (version or "").split(".")[:2]


def folders_beside(folder: Path) -> list[tuple[Path, SweepInfo]]:
    """The sweeps whose folders lie beside a sweep's; one that cannot be read is passed over.

    A search on several data sets has its sweeps one folder deeper.
    """
    found = []
    above = folder.parent.parent if _of_several(folder) else folder.parent
    for file in sorted([*above.glob("*/sweep.json"), *above.glob("*/*/sweep.json")]):
        if file.parent != folder:
            try:
                found.append((file.parent, read_json(file, SweepInfo)))
            except InputError:
                continue
    return found


def _of_several(folder: Path) -> bool:
    """Whether a sweep is one of several on unlike data: `<name>/<data>`, called `<name>-<data>`."""
    try:
        info = read_json(folder / "sweep.json", SweepInfo)
    except InputError:
        return False
    return folder.name == info.data and info.name.endswith(f"-{info.data}")


def _beside(sweep: SweepInfo, folder: Path) -> Iterable[_InFolder]:
    for place, info in folders_beside(folder):
        same = (info.fingerprint, info.protocol) == (sweep.fingerprint, sweep.protocol)
        if not same or not same_computation(sweep.versions, info.versions):
            continue
        try:
            records = read_trials(place)
        except InputError:
            continue
        runs = _sent(place)
        for record in records:
            if record.status == "completed" and record.phase != "baseline":
                run = runs.get(f"{record.number}-{record.key}", "")
                yield _InFolder(info, place, record, run)


def _sent(place: Path) -> dict[str, str]:
    """The runs of a sweep's trials in MLflow, as far as they are known."""
    try:
        state = read_json(place / TRACKING, TrackingState)
    except InputError:
        return {}
    return {trial: sent.run_id for trial, sent in state.trials.items()}


def _runs(sweep: SweepInfo, tracking: str) -> Iterable[_InMlflow]:
    uri = resolve_uri(tracking)
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():
        return
    client = open_zoo(uri)
    where = f"tags.`{fields.KIND}` = 'trial' and tags.fingerprint = '{sweep.fingerprint}'"
    where += " and tags.status = 'completed'"
    experiments = [str(e.experiment_id) for e in client.search_experiments()]
    for run in all_runs(client, experiments, where):
        tags = run.data.tags
        if tags.get(fields.SWEEP) == sweep.id or not tags.get(fields.TRIAL_KEY):
            continue
        if tags.get("phase") in ("search", "final") and same_computation(
            sweep.versions, _json(tags.get("versions", "{}"))
        ):
            yield _InMlflow(client, uri, run)


def _json(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _named(metrics: Mapping[str, float], group: str) -> Metrics:
    return {fields.metric_name(k): v for k, v in metrics.items() if k.startswith(f"{group}/")}


def _placed(model: Path, target: Path, *, tested: bool) -> bool:
    """Link or copy a model's folder to where a training would have left it.

    Whether that went well: a model that is gone, or whose test left no values, is none to take.
    """
    if not (model / "config.json").is_file() or (tested and not (model / FILE).is_file()):
        return False
    temporary = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.taken-")
        shutil.copytree(model, Path(temporary) / "best", copy_function=_link)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(Path(temporary) / "best", target)
    except OSError:
        return False
    finally:
        shutil.rmtree(temporary, ignore_errors=True) if temporary else None
    return True


def _link(source: str, target: str) -> str:
    """Files of a model are replaced and never written to, so that two sweeps may share them."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
