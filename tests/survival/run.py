"""A sweep that is killed again and again, against the same sweep left in peace.

    python tests/survival/run.py [--kills 30] [--seed 1] [--folder FOLDER]

The embedded corpus is searched with the real training loop while SIGKILL hits, each at random
moments:

    worker    a TorchTrainer worker in the middle of its training
    trial     the Tune actor of a trial
    slot      the actor that watches over a trial's workers
    mailbox   the actor through which trials and workers talk
    node      the second of two Ray nodes: all of its processes at once; a new one joins
    mlflow    the MLflow server with its workers; started again a little later
    driver    the driver alone; with a Ray of its own that goes too, on a cluster it stays
    machine   driver, nodes and MLflow server at once

What had to be started again is started, the driver by the command of the first time. When the sweep
has ended, it is compared with what was told of it: no finished trial is lost or there twice (in the
records, in Optuna's journal, in MLflow), nothing still runs (processes, rows, runs), each training
went on from the last epoch that it had reported, and the leaderboard equals that of the same search
without a kill.

What equal means. The proposals of random search depend on the seed and their place alone, so with
`sampler: random` and `scheduler: none`, as here, the same configurations are trained whatever
happens, and since a training that goes on from its checkpoint ends with the same weights, every
metric of every epoch equals the other's to the last bit. Only the numbers of the trials may differ.
TPE and ASHA decide by the results that are there when they are asked. With one trial at a time
that is the same in both sweeps, too. With several at once two undisturbed sweeps already differ,
and what holds is the rest.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[1]))  # as pytest does it

from checks import (
    check_board,
    check_epochs,
    check_leftovers,
    check_mlflow,
    check_records,
    check_study,
)
from processes import family, wait_for
from world import ROOT, World

ALONE = ("worker", "trial", "mlflow", "slot", "mailbox", "worker", "trial")
CLUSTER = ("node", "worker", "trial", "node", "mlflow")
ENDS = ("driver", "machine")
EPOCHS = 4
PATIENCE = 900.0  # seconds in which a sweep must come to its next epoch: machines may be busy
SPACE = """\
name: survival
data: {root}/datasets/mind_sample.yaml
seed: {seed}
model:
  hidden_size: 16
  content: {{choice: [{{name: id}}, {{name: pooling}}, {{name: cnn}}]}}
  behavior: {{choice: [{{name: pooling}}, {{name: additive}}]}}
  predictor: {{choice: [{{name: dot}}, {{name: dnn}}]}}
train:
  {{epochs: {epochs}, patience: {epochs}, batch_size: 32, learning_rate: {{log: [1e-3, 1e-2]}}}}
evaluate: {{metrics: [auc, mrr], select: auc}}
search: {{trials: {trials}, concurrent: 2, sampler: {{name: random}}, scheduler: {{name: none}}}}
final: {{top: 1, seeds: 2}}
tracking: {{uri: "{tracking}"}}
"""


@dataclass
class Kill:
    """One kill: of what, in which form of the world, and how the sweep went on."""

    victim: str
    form: str
    epochs: int = 0  # that had been reported by then
    seconds: float = 0.0  # until the next one was reported


@dataclass
class Run:
    """What was done and found."""

    kills: list[Kill] = field(default_factory=list)
    wrong: dict[str, list[str]] = field(default_factory=dict)
    starts: int = 0  # of the driver


def legs(kills: int, dice: random.Random) -> list[tuple[str, list[str]]]:
    """The kills in groups: a driver's life each, which the last one ends."""
    found: list[tuple[str, list[str]]] = []
    drawn: dict[str, list[str]] = {"alone": [], "cluster": []}
    ends: list[str] = []
    while (left := kills - sum(len(victims) for _, victims in found)) > 0:
        form = "cluster" if len(found) % 2 else "alone"
        victims = []
        for _ in range(min(left, dice.randint(3, 5)) - 1):
            if not drawn[form]:  # each kind as often as the next, in an order of its own
                drawn[form] = list(ALONE if form == "alone" else CLUSTER)
                dice.shuffle(drawn[form])
            victims.append(drawn[form].pop())
        ends = ends or list(ENDS)
        found.append((form, [*victims, ends.pop(len(found) // 2 % len(ends))]))
    return found


class Disturbance:
    """One sweep with kills."""

    def __init__(self, world: World, dice: random.Random, say: Callable[[str], None]) -> None:
        self.world, self.dice, self.say = world, dice, say
        self.run = Run()

    def go(self, plan: list[tuple[str, list[str]]]) -> Run:
        """Run the sweep to its end through all kills."""
        for form, victims in plan:
            if form == "alone":
                self.world.end_cluster()
            self._start(form)
            for victim in victims:
                self._kill(victim, form)
        self._start(plan[-1][0] if self.world.cluster else "alone")
        driver = self.world.driver
        assert driver is not None
        wait_for(lambda: not driver.alive, "the sweep ends", 4 * PATIENCE)
        if driver.process.returncode:
            raise AssertionError(
                f"the driver ended with {driver.process.returncode}: {driver.told()}"
            )
        return self.run

    def _start(self, form: str) -> None:
        self.world.start(form)
        self.run.starts += 1

    def _kill(self, victim: str, form: str) -> None:
        """Wait for progress and a random moment, kill, and see that the sweep goes on."""
        self._progress(self.dice.randint(1, 2))
        moment = time.monotonic() + self.dice.uniform(0.0, 4.0)
        wait_for(lambda: time.monotonic() > moment, "", 60)
        before, began = self.world.epochs(), time.monotonic()
        wait_for(lambda: self._hit(victim), f"a {victim} to kill", PATIENCE)
        kill = Kill(victim, form, before)
        self.run.kills.append(kill)
        self.say(f"{len(self.run.kills):>3}  {form:<8} {victim:<8} after {before} epochs")
        if victim in ENDS:
            return
        moment = time.monotonic() + self.dice.uniform(0.0, 5.0)
        wait_for(lambda: time.monotonic() > moment, "", 60)
        self.world.bring_back(victim)
        self._progress(1)
        kill.seconds = time.monotonic() - began

    def _hit(self, victim: str) -> bool:
        self._see_driver()
        return self.world.kill(victim, self.dice)

    def _see_driver(self) -> None:
        driver = self.world.driver
        assert driver is not None
        if not driver.alive:
            raise AssertionError(
                f"the driver ended with {driver.process.returncode}: {driver.told()}"
            )

    def _progress(self, epochs: int) -> None:
        """Wait until so many more epochs have been reported."""
        target = self.world.epochs() + epochs

        def there() -> bool:
            self._see_driver()
            return self.world.epochs() >= target

        wait_for(there, f"epoch {target} of the sweep", PATIENCE)


def search(folder: Path, short: Path, home: Path, space: str) -> World:
    """A world with its space file, not started yet."""
    folder.mkdir(parents=True)
    world = World(folder, short, uuid.uuid4().hex, home)
    world.space.write_text(space.replace("{tracking}", world.mlflow.uri))
    return world


def undisturbed(world: World) -> None:
    """Run a sweep to its end in peace."""
    world.start("alone")
    assert world.driver is not None
    code = world.driver.process.wait(8 * PATIENCE)
    world.end()
    if code:
        raise AssertionError(f"the undisturbed driver ended with {code}: {world.driver.told()}")


def survive(folder: Path, *, kills: int, seed: int, plan: list[tuple[str, list[str]]] | None = None,
            say: Callable[[str], None] = print) -> Run:  # fmt: skip
    """Run both sweeps and all checks.

    Args:
        folder: for everything; it must not exist.
        kills: how many.
        seed: of the kills and of the search.
        plan: the kills, where they are not to be drawn.
        say: told how it goes.
    """
    dice = random.Random(seed)
    plan = plan or legs(kills, dice)
    count = sum(len(victims) for _, victims in plan)
    trials = max(count + 2, 3 * count // 2)  # about five epochs pass for each
    home = folder / "home"
    space = SPACE.format(root=ROOT, seed=seed, epochs=EPOCHS, trials=trials, tracking="{tracking}")
    short = Path(tempfile.mkdtemp(prefix="lr", dir="/tmp"))
    one, two = (search(folder / n, short / n[0], home, space) for n in ("peace", "war"))
    try:
        began = time.monotonic()
        undisturbed(one)
        say(f"{trials} trials in peace: {time.monotonic() - began:.0f} s")
        began = time.monotonic()
        run = Disturbance(two, dice, say).go(plan)
        say(f"the same with {len(run.kills)} kills: {time.monotonic() - began:.0f} s")
        run.wrong = all_checks(two, one, trials)
        return run
    finally:
        one.end()
        two.end()
        shutil.rmtree(short, ignore_errors=True)


def all_checks(world: World, peace: World, trials: int) -> dict[str, list[str]]:
    """What is wrong, by check; empty lists where all is well."""
    sweep = world.sweep
    found = {
        "records: all trials once": check_records(sweep, trials, EPOCHS),
        "epochs: gone on from the last": check_epochs(sweep),
        "Optuna: all trials once": check_study(sweep, trials),
        "MLflow: all trials once": check_mlflow(sweep, world.mlflow.store, EPOCHS),
        "folder: nothing left over": check_leftovers(sweep),
        "leaderboard: as without kills": check_board(sweep, peace.sweep),
    }
    world.end_cluster()
    world.mlflow.kill()
    try:
        # Ray's agents of a killed node try for a minute to tell of it before they end.
        wait_for(lambda: not family(world.mark), "all processes end", 150)
        found["processes: none left"] = []
    except AssertionError:
        found["processes: none left"] = [f"still there: {n}" for n in family(world.mark).values()]
    return found


def table(run: Run) -> str:
    """The kills by victim, and the checks."""
    lines = [f"{'killed':<10}{'times':>6}{'to the next epoch (median)':>30}"]
    for victim in dict.fromkeys(kill.victim for kill in run.kills):
        own = [kill for kill in run.kills if kill.victim == victim]
        seconds = [kill.seconds for kill in own if kill.seconds]
        told = f"{statistics.median(seconds):.0f} s" if seconds else "(started again)"
        lines.append(f"{victim:<10}{len(own):>6}{told:>30}")
    lines.append(f"{'all':<10}{len(run.kills):>6}{run.starts:>21} starts of the driver\n")
    for name, wrong in run.wrong.items():
        lines.append(f"{name:<34}{'FAILED' if wrong else 'holds'}")
        lines += [f"    {what}" for what in wrong]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="kept afterwards; a temporary one if not given")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="survival-")) / "run"
    run = survive(folder, kills=given.kills, seed=given.seed)
    print(table(run))
    if any(run.wrong.values()):
        print(f"everything is in {folder}")
        return 1
    if given.folder is None:
        shutil.rmtree(folder.parent, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
