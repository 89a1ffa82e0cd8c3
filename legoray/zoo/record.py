"""The recorder: keeps MLflow up to date with a sweep, and never stands in its way.

`push` only notes what is new; a thread sends it. A tracking server that is down, or a database that
is locked, costs the sweep nothing: the trial records on disk are the truth, `tracking.json` knows
what was sent, and the rest follows by itself, by `flush`, or when the sweep is started again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from legoray.errors import InputError
from legoray.rayjob import in_copy
from legoray.records import SweepInfo, TrialRecord, read_json, read_trials
from legoray.spaceconfig import TrackingConfig
from legoray.storage.folders import fetch
from legoray.zoo.sender import Sender
from legoray.zoo.state import FILE, TrackingState, load_state, save_state
from legoray.zoo.store import DEFAULT_URI, resolve_uri
from legoray.zoo.view import view_path

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between attempts while the store fails
UI = "http://127.0.0.1:5000"


class Recorder:
    """Records one sweep. All methods but the constructor are safe: they never raise for MLflow.

    Raises:
        InputError: the tracking address is not one, or the folder cannot be written.
    """

    def __init__(
        self, tracking: TrackingConfig, sweep: SweepInfo, folder: Path, *, base: Path | None = None
    ) -> None:
        fresh = TrackingState(
            uri=resolve_uri(tracking.uri, base),
            experiment=tracking.experiment or sweep.name,
            register_as=tracking.register_as or sweep.name,
        )
        self.folder = Path(folder)
        self.problem = ""  # the last failure of the store, empty when all is well
        state = load_state(self.folder, fresh).model_copy(update={"ended": False})
        save_state(self.folder, state)
        self._sender = Sender(state, sweep, self.folder)
        self._waiting: dict[str, tuple[TrialRecord, Path | None]] = {}
        self._refused: set[str] = set()  # trials that the store refuses though it is up
        self._pushed: set[str] = set()
        self._best: TrialRecord | None = None
        self._wake = threading.Condition()
        self._sending = threading.RLock()
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> TrackingState:
        """What MLflow has so far."""
        return self._sender.state

    @property
    def waiting(self) -> int:
        """How many trials have news that MLflow does not have yet."""
        with self._wake:
            return len(self._waiting)

    def push(self, record: TrialRecord, model: Path | None = None) -> None:
        """Note a trial's news: at its start, at every epoch, at its end, and again on resume.

        Args:
            record: the trial as it is now; the same one twice changes nothing.
            model: folder of its best epoch; a completed trial's is found in the sweep's folder.
        """
        with self._wake:
            self._pushed.add(_place(record))
            self._refused.discard(_place(record))
            self._waiting[_place(record)] = (record, model)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="legoray-zoo", daemon=True)
                self._thread.start()
            self._wake.notify()

    def flush(self) -> int:
        """Send everything that is missing, from the records on disk and what was pushed.

        Returns:
            How many trials could not be sent; `problem` says why.
        """
        with self._wake:
            self._refused.clear()
            for record in self._on_disk():
                if self._sender.has(record, self._model_of(record)):
                    continue
                self._waiting.setdefault(_place(record), (record, None))
        self._send_waiting()
        with self._wake:
            done = not self._due()
        if self.state.ending and done:
            self._end()
        return self.waiting

    def finish(self, best: TrialRecord | None = None, *, interrupted: bool = False) -> bool:
        """Send what is missing, register the winner as `champion`, and close every run.

        Args:
            best: the trial that won; None if none did.
            interrupted: the sweep did not come to its end; the parent run is marked KILLED.

        Returns:
            Whether MLflow has everything. If not, `flush` or the sweep started again sends it.
        """
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._best = best
        winner = None if best is None else best.number
        note = partial(self._sender.update, ending=True, winner=winner, interrupted=interrupted)
        if self._guarded(note):
            self.flush()
        return self.state.ended

    def attach(self, path: Path) -> bool:
        """Keep a file with the sweep's run, once `finish` was called; whether MLflow has it."""
        return self._guarded(partial(self._sender.attach, path))

    def links(self) -> list[str]:
        """Commands and an address to look at the sweep, for the closing lines."""
        known = self.state.experiment_id  # nothing is known of a store that never answered
        where = view_path(known) if known else "/"
        if self.state.uri.startswith("http"):
            return [self.state.uri.rstrip("/") + where]
        plain = not in_copy() and resolve_uri(self.state.uri) == resolve_uri(DEFAULT_URI)
        store = "" if plain else f" --backend-store-uri {self.state.uri}"
        return [f"mlflow ui{store}", UI + where]

    def _run(self) -> None:
        """The thread: send what waits, and pause longer and longer while the store fails."""
        pause = FIRST_PAUSE
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or self._due())
            if self._closed:
                return
            self._send_waiting()
            with self._wake:
                if self._due() and self.problem:
                    self._wake.wait_for(lambda: self._closed, pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                else:
                    pause = FIRST_PAUSE

    def _due(self) -> list[str]:
        return [place for place in self._waiting if place not in self._refused]

    def _send_waiting(self) -> None:
        """Try each waiting trial once; stop at the first failure if the store itself fails."""
        with self._sending:
            while True:
                with self._wake:
                    place = next(iter(self._due()), None)
                    news = self._waiting[place] if place else None
                if place is None or news is None:
                    return
                record, model = news
                if self._guarded(partial(self._send, record, model)):
                    with self._wake:
                        if self._waiting.get(place) is news:
                            del self._waiting[place]
                elif self._guarded(self._sender.alive, quietly=True):
                    self._refused.add(place)
                else:
                    return

    def _send(self, record: TrialRecord, model: Path | None) -> None:
        self._sender.send(record, self._model_of(record, model))

    def _model_of(self, record: TrialRecord, model: Path | None = None) -> Path | None:
        """The model folder of a completed trial; what was stopped or failed keeps none."""
        if record.status != "completed" or record.phase == "baseline":
            return None
        folder = self.folder / "models" / record.key
        found = model or folder / "best"
        if not found.is_dir():
            fetch(folder)
        return found if found.is_dir() else None

    def _end(self) -> None:
        with self._sending:
            winner = next((r for r in self._on_disk() if r.number == self.state.winner), self._best)
            model = self._model_of(winner) if winner else None
            end = partial(self._sender.end, winner, model, self.state.interrupted)
            if self._guarded(end) and not self._refused:
                self.problem = ""

    def _on_disk(self) -> list[TrialRecord]:
        """The sweep's records; one that runs in no process of ours was interrupted."""
        try:
            records = read_trials(self.folder)
        except InputError as error:
            self.problem = str(error)
            return []
        return [
            r.model_copy(update={"status": "interrupted"})
            if r.status == "running" and (self._closed or _place(r) not in self._pushed)
            else r
            for r in records
        ]

    def _guarded(self, call: Callable[[], object], *, quietly: bool = False) -> bool:
        """Whether a call to MLflow went well; its failure is noted and goes no further."""
        try:
            call()
        except Exception as error:
            if not quietly:
                first = (str(error).strip() or type(error).__name__).splitlines()[0]
                self.problem = f"{self.state.uri}: {first[:300]}"
            return False
        if not self._refused and not quietly:
            self.problem = ""
        return True


def send_missing(folder: Path) -> Recorder:
    """Send what is missing of a sweep that no longer runs, and close its runs.

    Returns:
        The recorder; `waiting` and `problem` say what could not be sent.

    Raises:
        InputError: the folder is not a sweep's, or was never recorded.
    """
    sweep = read_json(Path(folder) / "sweep.json", SweepInfo)
    state = read_json(Path(folder) / FILE, TrackingState)
    place = {"uri": state.uri, "experiment": state.experiment, "register_as": state.register_as}
    recorder = Recorder(TrackingConfig(**place), sweep, folder)
    best = next((r for r in read_trials(folder) if r.number == state.winner), None)
    done = state.ending or state.ended
    recorder.finish(best, interrupted=state.interrupted if done else True)
    report = Path(folder) / "report.html"
    if report.exists() and not recorder.problem:
        recorder.attach(report)
    return recorder


def _place(record: TrialRecord) -> str:
    return f"{record.number}-{record.key}"
