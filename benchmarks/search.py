"""How quickly trials start, what a long sweep leaves behind, and what trials on a node share.

    python benchmarks/search.py --part start  [--trials 8]
    python benchmarks/search.py --part long   [--trials 300]
    python benchmarks/search.py --part memory

All of it is the real thing: a random search over the learning rate of a composition on the embedded
corpus, with Optuna's journal, Ray Tune and the real training loop.

`start` runs the same search once in a warm slot and once with a new TorchTrainer for each trial,
one trial at a time, each of about two seconds of training. `first step` is the median time from the
end of a trial to the first training step of the next, without the first trial of a slot. `states`
reads the stored hidden states of a language model (MiniLM), `words` its own token ids.

`long` looks at the processes of a sweep of many tiny trials as it goes on: memory that is a
process's own, threads and open files, and Ray's actors and objects.

`memory` lets two trials run side by side on one node, and tells of what their workers have mapped
how much is in memory once (`shared`) and how much each holds for itself.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from ratios import add_json, write_ratios

from legoray.config import TrialConfig, build, home
from legoray.data.prepare import Prepared, prepare
from legoray.rayinit import ensure_ray
from legoray.records import TrialRecord
from legoray.search.opening import open_sweep
from legoray.search.space import Space, read_space
from legoray.search.sweep import Sweep

ROOT = Path(__file__).parents[1]
SECONDS = 2.0  # of training in one trial
WORDS = "{name: cnn, length: 12}"
STATES = "{name: llm, model: minilm, split: 6, length: 16, pooling: mean, template: '{title}'}"
QUANTIZED = "{name: llm, model: minilm, split: 5, length: 16, precision: int8, template: '{title}'}"
TINY = "{name: id}"
SPACE = """\
name: bench
data: {root}/datasets/mind_sample.yaml
model:
  hidden_size: 32
  content: {content}
  behavior: {{name: additive, attention_size: 16}}
  predictor: {{name: dot}}
train:
  {{epochs: {epochs}, patience: {epochs}, batch_size: {batch}, max_history: {history},
    learning_rate: {{log: [1e-4, 1e-2]}}}}
evaluate: {{metrics: [auc], select: auc}}
search: {{trials: {trials}, sampler: {{name: random}}, scheduler: {{name: none}}}}
"""


@dataclass
class Case:
    """A search to run."""

    content: str
    epochs: int = 1
    batch: int = 256
    history: int = 10
    trials: int = 8
    trainer: str = "warm"
    concurrent: int | None = 1
    watchers: list[Callable[[TrialRecord], None]] = field(default_factory=list)


@contextlib.contextmanager
def opened(case: Case) -> Iterator[tuple[Space, Prepared, Path]]:
    """The space of a case, its data, and a folder."""
    with tempfile.TemporaryDirectory(prefix="search-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "space.yaml"
        settings = {
            k: getattr(case, k) for k in ("content", "epochs", "batch", "history", "trials")
        }
        file.write_text(SPACE.format(root=ROOT, **settings))
        space = read_space(file)
        yield space, prepare(space.dataset, say=lambda text: None), Path(folder)


def run(case: Case) -> tuple[list[TrialRecord], float]:
    """Run a search; its records, and when it began."""
    from legoray.data.load import load_corpus_ray
    from legoray.search.phases import Budget, Goal
    from legoray.search.scribe import Halt
    from legoray.search.study import StudySearcher
    from legoray.search.tuner import Plan, run_trials

    with opened(case) as (space, prepared, folder):
        sweep: Sweep = open_sweep(space, folder / "sweep", prepared.tables, prepared.manifest)
        study = StudySearcher(space, sweep.folder, sweep_id=sweep.info.id)
        search = space.config.search.model_copy(
            update={"trainer": case.trainer, "concurrent": case.concurrent}
        )
        plan = Plan(
            search=search,
            budget=Budget(case.trials),
            goal=Goal("auc", "max"),
            epochs=case.epochs,
            home=str(home()),
            finals=list,
            watchers=case.watchers,
        )
        began = time.time()
        run_trials(sweep, study, load_corpus_ray(prepared.tables), plan, Halt())
        records = sweep.of("search")
        sweep.close()
    failed = [r.reason for r in records if r.status != "completed"]
    if failed:
        raise SystemExit(f"a trial failed: {failed[0]}")
    return records, began


def two_seconds(case: Case) -> Case:
    """The case with as many epochs as take about two seconds, trained here to see."""
    from legoray.train.cache import shared_corpus
    from legoray.train.job import Job, Runtime
    from legoray.train.loop import train

    with opened(case) as (space, prepared, folder):
        config = build(TrialConfig, next(iter(space.corners())).model_dump())
        longer = config.train.model_copy(update={"epochs": 3, "patience": 3})
        job = Job(
            config=config.model_copy(update={"train": longer}),
            tables=str(prepared.tables),
            home=str(home()),
            folder=str(folder / "job"),
        )
        outcome = train(job, Runtime(shared_corpus(prepared.tables), threads=1), lambda row: None)
    seconds = statistics.median(e["train_seconds"] + e["evaluate_seconds"] for e in outcome.epochs)
    case.epochs = max(1, round(SECONDS / seconds))
    return case


def start(trials: int) -> dict[str, float]:
    """The table of part `start`; its ratios by name."""
    found: dict[str, float] = {}
    print(f"{'content':<8} {'trainer':<10} {'trained for':>12} {'first step':>12} {'slowest':>9}"
          f" {'trials/h':>9} {'against per_trial':>18}")  # fmt: skip
    for name, content in {"words": WORDS, "states": STATES}.items():
        case = two_seconds(Case(content))
        rates: dict[str, float] = {}
        lines = []
        for trainer, count in {"per_trial": max(3, trials // 2), "warm": trials}.items():
            case.trainer, case.trials = trainer, count
            records, _ = run(case)
            waits = [
                later.started + later.costs["start_seconds"] - float(before.ended or 0)
                for before, later in itertools.pairwise(records)
            ]
            ends = [float(r.ended or 0) for r in records]
            rates[trainer] = 3600 * (len(ends) - 1) / (ends[-1] - ends[0])
            trained = statistics.median(r.costs["train_seconds"] for r in records)
            found[f"search/first-step-seconds/{name}/{trainer}"] = statistics.median(waits)
            found[f"search/trials-x/{name}/{trainer}"] = rates[trainer] / rates["per_trial"]
            lines.append(
                f"{name:<8} {trainer:<10} {trained:>10.2f} s {statistics.median(waits):>10.2f} s"
                f" {max(waits):>7.2f} s {rates[trainer]:>9.0f}"
                f" {rates[trainer] / rates['per_trial']:>17.1f}x"
            )
        print("\n".join(lines), flush=True)
    return found


def own_processes() -> dict[str, list[psutil.Process]]:
    """This process and the workers and trial actors below it."""
    kinds = {"ray::RayTrainWorker": "worker", "ray::_Inner": "actor", "ray::Mailbox": "mailbox"}
    found: dict[str, list[psutil.Process]] = {"driver": [psutil.Process()]}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline())
            for begins, kind in kinds.items():
                if title.startswith(begins):
                    found.setdefault(kind, []).append(process)
    return found


@dataclass
class Growth:
    """Looks at the processes after so many trials."""

    at: list[int]
    ended: int = 0

    def __call__(self, record: TrialRecord) -> None:
        if record.status == "running" and record.ended is None:
            return
        self.ended += 1
        if self.ended in self.at:
            self.look()

    def look(self) -> None:
        from ray.util.state import list_actors, list_objects

        cells = []
        for kind in ("driver", "actor", "worker", "mailbox"):
            processes = own_processes().get(kind, [])
            own = sum(p.memory_full_info().uss for p in processes) / 2**20
            threads = sum(p.num_threads() for p in processes)
            files = sum(p.num_fds() for p in processes)
            cells.append(f"{len(processes)}: {own:>5.0f} {threads:>4} {files:>4}")
        actors = len(list_actors(filters=[("state", "=", "ALIVE")], limit=10000))
        objects = len(list_objects(limit=10000))
        print(f"{self.ended:>6}  " + "   ".join(cells) + f" {actors:>7} {objects:>8}", flush=True)


def long(trials: int) -> dict[str, float]:
    """The table of part `long`."""
    heads = (f"{kind:<8}MiB thr files" for kind in ("driver", "actor", "worker", "mailbox"))
    print("trials  " + " ".join(f"{head:<17}" for head in heads) + "  actors  objects")
    growth = Growth([max(4, trials * part // 10) for part in (1, 3, 5, 7, 9)] + [trials - 1])
    case = Case(TINY, batch=4096, history=5, trials=trials, concurrent=None, watchers=[growth])
    records, _ = run(case)
    ends = sorted(float(r.ended or 0) for r in records)
    half = len(ends) // 2
    halves = (ends[half] - ends[0], ends[-1] - ends[half])
    print(f"{len(ends)} trials; the halves took {halves[0]:.0f} s and {halves[1]:.0f} s")
    return {"search/second-half-x": halves[1] / halves[0]}


def maps(process: psutil.Process) -> dict[str, tuple[float, float]]:
    """MiB in memory and this process's part of them, by what is mapped."""
    places = {"tables (object store)": ("plasma", "/dev/shm"), "caches": (str(home()),),
              "weights": (".safetensors", ".gguf", str(Path.home() / ".cache"))}  # fmt: skip
    found = dict.fromkeys(places, (0.0, 0.0))
    for one in process.memory_maps(grouped=True):
        for name, parts in places.items():
            if any(part in one.path for part in parts):
                rss, pss = found[name]
                found[name] = (rss + one.rss / 2**20, pss + one.pss / 2**20)
                break
    return found


@dataclass
class Neighbours:
    """Looks once at the workers of two trials that both train."""

    seen: dict[int, int] = field(default_factory=dict)
    done: bool = False

    def __call__(self, record: TrialRecord) -> None:
        if record.status == "running":
            self.seen[record.number] = len(record.epochs)
        workers = own_processes().get("worker", [])
        if self.done or len(workers) < 2 or sum(n > 0 for n in self.seen.values()) < 2:
            return
        self.done = True
        for worker in workers:
            full = worker.memory_full_info()
            print(f"  worker {worker.pid}: {full.rss / 2**20:.0f} MiB resident,"
                  f" {full.uss / 2**20:.0f} MiB its own")  # fmt: skip
            for name, (rss, pss) in maps(worker).items():
                print(
                    f"    {name:<24}{rss:>8.1f} MiB mapped in memory, of them its part{pss:>8.1f}"
                )


def memory() -> dict[str, float]:
    """What part `memory` prints."""
    for name, content in {"states": STATES, "int8": QUANTIZED}.items():
        print(name, flush=True)
        run(Case(content, epochs=6, trials=2, concurrent=2, watchers=[Neighbours()]))
    return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=("start", "long", "memory", "all"), default="start")
    parser.add_argument("--trials", type=int, default=None)
    add_json(parser)
    given = parser.parse_args()
    ensure_ray()
    found: dict[str, float] = {}
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "start": lambda: start(given.trials or 8),
        "long": lambda: long(given.trials or 300),
        "memory": memory,
    }
    for name in parts if given.part == "all" else [given.part]:
        found |= parts[name]()
    write_ratios(given.json, found)


if __name__ == "__main__":
    main()
