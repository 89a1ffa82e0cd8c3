"""The study: what is told, what is never proposed twice, and what survives a killed process."""

from __future__ import annotations

import copy
import math
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher
from space_cases import FOUR, edited, make_space

from legoray.errors import InputError
from legoray.search.asktell import AskTell
from legoray.search.space import key_of
from legoray.search.study import StudySearcher

HERE = Path(__file__).parent


START = """start_with:
    - model: {content: {name: cnn, kernel_size: 5}, behavior: {name: additive}}
    - model: {predictor: {name: din}}
      train: {learning_rate: 2e-3}"""


def open_searcher(folder, text=None):
    space = make_space(folder) if text is None else make_space(folder, text)
    return StudySearcher(space, folder, sweep_id="sweep")


def rows(searcher):
    return searcher.study.rows()


def score(config):
    """A made-up result: decided by the configuration alone."""
    return 0.6 + 0.1 * math.sin(hash(str(sorted(config["model"]["content"].items()))) % 7)


def train(searcher, trial_id, value, epochs=3):
    """What Tune tells of a trial that ends by itself."""
    result = {}
    for epoch in range(1, epochs + 1):
        result = {"epoch": epoch, "auc": value - 0.01 * abs(epoch - 2)}
        searcher.on_trial_result(trial_id, result)
    searcher.on_trial_complete(trial_id, result)


@pytest.fixture
def searcher(tmp_path):
    return open_searcher(tmp_path)


def test_a_suggestion(searcher):
    found = searcher.suggest("a")
    assert set(found) == {"config", "number", "params"}
    assert found["number"] == 0
    assert found["config"]["train"]["epochs"] == 3
    assert found["params"]["model/content"] == found["config"]["model"]["content"]["name"]
    assert not any("@" in name for name in found["params"])


def test_a_trial_that_ends_by_itself_is_complete_with_its_best_epoch(searcher):
    searcher.suggest("a")
    train(searcher, "a", 0.7)
    (row,) = rows(searcher)
    assert row.state == TrialState.COMPLETE
    assert row.value == 0.7
    assert row.intermediate_values == {1: 0.69, 2: 0.7, 3: 0.69}


def test_early_stopping_is_complete(searcher):
    searcher.suggest("a")
    train(searcher, "a", 0.7, epochs=2)
    assert rows(searcher)[0].state == TrialState.COMPLETE


def test_a_trial_that_the_scheduler_stops_is_pruned(searcher):
    """Tune does not pass the last result on; it comes with the completion."""
    searcher.suggest("a")
    searcher.on_trial_result("a", {"epoch": 1, "auc": 0.6})
    searcher.on_trial_complete("a", {"epoch": 2, "auc": 0.55, "done": True})
    (row,) = rows(searcher)
    assert row.state == TrialState.PRUNED
    assert row.intermediate_values == {1: 0.6, 2: 0.55}
    assert row.value == 0.55, "the last value reported"


def test_a_stop_at_the_last_epoch_is_complete(searcher):
    searcher.suggest("a")
    searcher.on_trial_result("a", {"epoch": 2, "auc": 0.6})
    searcher.on_trial_complete("a", {"epoch": 3, "auc": 0.65})
    assert rows(searcher)[0].state == TrialState.COMPLETE
    assert rows(searcher)[0].value == 0.65


@pytest.mark.parametrize("status", ["infeasible", "failed", "interrupted"])
def test_an_ending_that_is_told(searcher, status):
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"status": status, "reason": "the loss is nan"})
    row = rows(searcher)[0]
    assert row.state == TrialState.FAIL
    assert row.user_attrs["outcome"] == status
    assert row.user_attrs["reason"] == "the loss is nan"


def test_a_told_ending_wins_over_guessing(searcher):
    searcher.suggest("a")
    searcher.on_trial_result("a", {"epoch": 1, "auc": 0.6})
    searcher.on_trial_complete("a", {"epoch": 1, "auc": 0.6, "status": "pruned"})
    assert rows(searcher)[0].state == TrialState.PRUNED


def test_an_error_is_a_failure_with_a_reason(searcher):
    searcher.suggest("a")
    searcher.on_trial_complete("a", error=True)
    row = rows(searcher)[0]
    assert (row.state, row.user_attrs["outcome"]) == (TrialState.FAIL, "failed")
    assert row.user_attrs["reason"]


def test_no_finite_value_is_a_failure(searcher):
    searcher.suggest("a")
    train(searcher, "a", math.nan)
    row = rows(searcher)[0]
    assert (row.state, row.user_attrs["outcome"]) == (TrialState.FAIL, "failed")
    assert "auc" in row.user_attrs["reason"]


def test_results_that_have_the_best_value_alone(searcher):
    searcher.suggest("a")
    searcher.on_trial_result("a", {"epoch": 1, "value": 0.6})
    searcher.on_trial_complete("a", {"epoch": 1, "status": "completed"})
    assert rows(searcher)[0].value == 0.6


def test_an_ending_is_told_once(searcher):
    number = searcher.suggest("a")["number"]
    searcher.conclude(number, "pruned")
    train(searcher, "a", 0.7)
    searcher.on_trial_complete("a", error=True)
    assert rows(searcher)[0].state == TrialState.PRUNED


def test_closing_leaves_nothing_running(searcher):
    first = searcher.suggest("a")
    searcher.suggest("b")
    train(searcher, "b", 0.7)
    searcher.close()
    assert [row.state for row in rows(searcher)] == [
        TrialState.FAIL,
        TrialState.COMPLETE,
        TrialState.WAITING,
    ]
    assert searcher.remaining(5) == 4
    assert searcher.suggest("c")["config"] == first["config"]


def test_a_metric_of_which_less_is_better(tmp_path):
    metrics = "evaluate: {metrics: [auc, logloss], select: logloss}\nsearch:"
    searcher = open_searcher(tmp_path, edited("search:", metrics))
    assert (searcher.metric, searcher.mode) == ("logloss", "min")
    searcher.suggest("a")
    for epoch, value in enumerate([0.7, 0.5, 0.6], 1):
        searcher.on_trial_result("a", {"epoch": epoch, "logloss": value})
    searcher.on_trial_complete("a", {"epoch": 3, "logloss": 0.6})
    assert rows(searcher)[0].value == 0.5


def suggestions(folder, count):
    searcher = open_searcher(folder)
    found = []
    for number in range(count):
        suggestion = searcher.suggest(str(number))
        found.append(suggestion["config"])
        train(searcher, str(number), 0.5 + (number * 7 % 10) / 100)
    return found


def test_same_seed_and_results_give_the_same_suggestions(tmp_path):
    assert suggestions(tmp_path / "a", 14) == suggestions(tmp_path / "b", 14)


def proposed(folder, text, *, kills=(), most=9):
    """Keys of the proposals in order; a process that is killed leaves its rows as they are."""
    searcher = open_searcher(folder, text)
    keys, running, kills = {}, [], list(kills)
    while len(keys) < most:
        found = searcher.suggest(f"{len(keys)}-{len(running)}")
        keys[rows(searcher)[found["number"]].user_attrs["key"]] = None
        running.append(found["number"])
        if len(keys) in kills and len(running) == 2:
            kills.remove(len(keys))
            if len(keys) % 2:
                half = searcher.study.study.ask()  # killed while it drew its parameters
                half.suggest_categorical("model/content", ["cnn", "id"])
            searcher, running = open_searcher(folder, text), []
        elif len(running) == 2:
            searcher.conclude(running.pop(0), "completed", value=0.5 + len(keys) / 100)
    return list(keys)


@pytest.mark.parametrize("start", ["trials: 5", START])
def test_kills_do_not_change_what_is_proposed(tmp_path, start):
    """Random search of two trials at once, killed three times, against the same without a kill."""
    text = edited("trials: 5", f"{start}\n  sampler: {{name: random}}")
    plain = proposed(tmp_path / "plain", text)
    assert len(set(plain)) == 9
    assert proposed(tmp_path / "killed", text, kills=(3, 5, 6)) == plain


def test_kills_do_not_change_what_tpe_proposes_one_at_a_time(tmp_path):
    found = []
    for name, kills in {"plain": (), "killed": (4, 9, 13)}.items():
        searcher, keys = open_searcher(tmp_path / name), []
        while len(keys) < 15:
            number = searcher.suggest("x")["number"]
            if len(keys) in kills:
                kills = kills[1:]
                searcher = open_searcher(tmp_path / name)
                number = searcher.suggest("x")["number"]
            keys.append(rows(searcher)[number].user_attrs["key"])
            searcher.conclude(number, "completed", value=int(keys[-1], 16) % 97 / 100)
        found.append(keys)
    assert found[0] == found[1]


def test_going_on_proposes_something_new(tmp_path):
    first = suggestions(tmp_path, 3)
    again = open_searcher(tmp_path)
    assert again.suggest("x")["config"] not in first
    assert again.suggest("y")["config"] not in first


def test_nothing_is_proposed_twice_and_a_small_space_ends(tmp_path):
    searcher = open_searcher(tmp_path, FOUR)
    labels = []
    for number in range(4):
        config = searcher.suggest(str(number))["config"]
        labels.append("+".join(config["model"][k]["name"] for k in ("content", "predictor")))
        if number % 2:
            train(searcher, str(number), 0.6)
    assert sorted(labels) == ["id+din", "id+dot", "pooling+din", "pooling+dot"]
    assert searcher.suggest("more") == Searcher.FINISHED
    assert "all 4 configurations" in searcher.exhausted
    rejected = [r for r in rows(searcher) if r.user_attrs.get("outcome") == "rejected"]
    assert rejected
    assert all(row.state == TrialState.FAIL for row in rejected)
    assert all("the same configuration as trial" in r.user_attrs["reason"] for r in rejected)
    assert searcher.remaining(10) == 8, "two have ended, two still run"


def test_a_failed_configuration_is_not_tried_again(tmp_path):
    searcher = open_searcher(tmp_path, FOUR)
    for number in range(4):
        searcher.suggest(str(number))
        searcher.on_trial_complete(str(number), error=True)
    assert searcher.suggest("more") == Searcher.FINISHED
    assert searcher.remaining(4) == 0


def test_impossible_combinations_are_rejected_and_asked_again(tmp_path):
    text = edited("hidden_size: 16", "hidden_size: {choice: [16, 18]}")
    text = edited("choice: [2, 4]}", "choice: [9, 4]}", text)
    searcher = open_searcher(tmp_path, text)
    for number in range(20):
        searcher.suggest(str(number))
    outcomes = [row.user_attrs.get("outcome") for row in rows(searcher)]
    assert outcomes.count(None) == 20
    assert "rejected" in outcomes
    assert any("heads" in row.user_attrs.get("reason", "") for row in rows(searcher))


def test_starting_points_come_first_and_once(tmp_path):
    text = edited("trials: 5", START)
    searcher = open_searcher(tmp_path, text)
    first = searcher.suggest("a")["config"]
    assert first["model"]["content"]["kernel_size"] == 5
    assert first["model"]["behavior"]["name"] == "additive"
    again = open_searcher(tmp_path, text)  # the first one is taken up again, after the second
    second = again.suggest("b")["config"]
    assert second["model"]["predictor"]["name"] == "din"
    assert second["train"]["learning_rate"] == 2e-3
    assert again.suggest("c")["config"] == first
    starts = [row.user_attrs["start"] for row in rows(again) if "start" in row.user_attrs]
    assert starts == [0, 1]


def test_resuming_takes_up_what_ran_exactly_once(tmp_path):
    dead = open_searcher(tmp_path)
    running = [dead.suggest("a"), dead.suggest("b")]
    searcher = open_searcher(tmp_path)
    assert searcher.interrupted == [0, 1]
    assert all(row.state == TrialState.FAIL for row in rows(searcher)[:2])
    once_more = open_searcher(tmp_path)
    assert once_more.interrupted == []
    assert once_more.remaining(2) == 2
    again = [once_more.suggest("a"), once_more.suggest("b")]
    assert [found["config"] for found in again] == [found["config"] for found in running]
    assert once_more.suggest("c")["config"] not in [found["config"] for found in running]


def test_killed_between_enqueueing_and_telling(tmp_path):
    dead = open_searcher(tmp_path)
    dead.suggest("a")
    dead.study._enqueue_again(rows(dead)[0])
    searcher = open_searcher(tmp_path)
    waiting = [row for row in rows(searcher) if row.state == TrialState.WAITING]
    assert len(waiting) == 1
    assert rows(searcher)[0].state == TrialState.FAIL


def test_what_a_killed_process_could_not_tell_is_told_by_its_key(tmp_path):
    """Also where a second process was killed before it came to the row that waits."""
    dead = open_searcher(tmp_path)
    known, other = dead.suggest("a"), dead.suggest("b")
    open_searcher(tmp_path)
    searcher = open_searcher(tmp_path)
    keys = {key_of(known["config"])}
    for trial_id, proposal in searcher.owed(keys):
        assert proposal["config"] == known["config"]
        result = {"status": "completed", "best": {"auc": 0.6}, "epoch": 3, "auc": 0.6}
        searcher.on_trial_complete(trial_id, result)
    (told,) = [row for row in rows(searcher) if row.state == TrialState.COMPLETE]
    assert told.value == 0.6
    assert told.params == rows(searcher)[0].params
    assert list(searcher.owed(keys)) == []
    assert searcher.suggest("c")["config"] == other["config"]


def test_a_row_without_parameters_is_dropped(tmp_path):
    dead = open_searcher(tmp_path)
    dead.study.study.ask()
    searcher = open_searcher(tmp_path)
    assert [row.state for row in rows(searcher)] == [TrialState.FAIL]
    assert searcher.remaining(1) == 1


def run_until(folder, ended):
    """Let a process search, and kill it the moment it says that so many trials have ended."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "ask_forever.py"), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    count = 0
    for line in process.stdout:
        count += line.startswith("ended")
        if count == ended:
            break
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended by itself"
    process.stdout.close()


def test_a_killed_process_loses_nothing(tmp_path):
    for ended in (3, 2):
        run_until(tmp_path, ended)
    study = AskTell(make_space(tmp_path), tmp_path / "study.journal", name="killed")
    before = study.rows()
    done = [row for row in before if row.state == TrialState.COMPLETE]
    running = [row for row in before if row.state == TrialState.RUNNING]
    assert len(done) >= 5
    assert 1 <= len(running) <= 2
    study.resume()
    assert study.remaining(12) == 12 - len(done)
    keys = []
    while study.remaining(12):
        found = study.ask()
        study.conclude(found.number, "completed", value=0.5)
    states = {row.state for row in study.rows()}
    assert TrialState.RUNNING not in states
    keys = [row.user_attrs["key"] for row in study.rows() if row.state == TrialState.COMPLETE]
    assert len(keys) == len(set(keys)) == 12
    repeated = [row.user_attrs.get("again_of") for row in study.rows()]
    assert all(repeated.count(row.number) == 1 for row in running if row.params)


def test_half_a_line_at_the_end_of_the_journal(tmp_path):
    open_searcher(tmp_path).suggest("a")
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code": 4, "worker')
    searcher = open_searcher(tmp_path)
    searcher.suggest("b")
    assert open_searcher(tmp_path).study.rows()


def test_half_a_line_that_a_full_disk_left_within_a_search(tmp_path):
    searcher = open_searcher(tmp_path)
    searcher.suggest("a")
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code": 4, "worker')
    train(searcher, "a", 0.7)
    again = open_searcher(tmp_path)
    assert [row.state for row in rows(again)] == [TrialState.COMPLETE]


def test_a_damaged_journal_is_told(tmp_path):
    open_searcher(tmp_path).suggest("a")
    journal = tmp_path / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"rubbish\n", *lines[2:]]))
    with pytest.raises(InputError, match=r"study\.journal.* is damaged"):
        open_searcher(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    space = make_space(tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        StudySearcher(space, tmp_path / "file" / "sweep", sweep_id="x")


def test_copies_and_pickles_share_the_journal(searcher):
    searcher.suggest("a")
    assert copy.deepcopy(searcher) is searcher
    again = pickle.loads(pickle.dumps(searcher))
    train(again, "a", 0.7)
    assert rows(searcher)[0].state == TrialState.COMPLETE
    assert searcher.remaining(2) == again.remaining(2) == 1


def test_snapshots_are_not_needed(searcher, tmp_path):
    searcher.save_to_dir(str(tmp_path / "nowhere"))
    searcher.restore("nowhere")
