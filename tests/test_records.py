import os
import pickle

import pytest

from legoray.errors import InputError, Problem
from legoray.records import TrialRecord, digest, read_json, read_trials, write_json


def record(number):
    return TrialRecord(number=number, key=f"k{number}", label="id+pooling+dot", config={})


def test_records_come_back_in_order_of_number(tmp_path):
    for number in (10, 2, 0):
        write_json(tmp_path / "trials" / f"{number}.json", record(number))
    assert [trial.number for trial in read_trials(tmp_path)] == [0, 2, 10]
    assert read_trials(tmp_path)[1] == record(2)
    assert not [name for name in os.listdir(tmp_path / "trials") if name.startswith(".")]


def test_nan_survives(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, record(0).model_copy(update={"costs": {"seconds": 1.0}}))
    assert read_json(path, TrialRecord).costs == {"seconds": 1.0}


@pytest.mark.parametrize("content", ["", "{", '{"number": 1}', "[]", "\xff"])
def test_a_damaged_record_names_its_file(tmp_path, content):
    path = tmp_path / "0.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"0\.json: is damaged"):
        read_json(path, TrialRecord)


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "trials").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "trials" / "0.json", record(0))


def test_digest_ignores_the_order_of_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_errors_cross_processes():
    error = InputError(Problem("f:1", "is wrong", "do this"))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "f:1: is wrong (do this)"


def test_others_may_read_a_record(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644
