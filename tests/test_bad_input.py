"""What users get wrong: each case is one clear message, exit code 2, and nothing half written.

The commands run as a user runs them, through the command line's own entry; a traceback fails a case
because only `InputError` is turned into a message there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from legoray import cli

NEWS = "\n".join(
    f"N{n}\tsports\tsoccer\tHeadline number {n} about the cup\tAn abstract.\thttps://x\t[]\t[]"
    for n in range(1, 13)
)
TRAIN = "\n".join(
    f"{n}\tU{n % 4}\t11/{9 + n % 5}/2019 8:0{n % 10}:57 AM\tN1 N2 N{n % 9 + 3}\tN{n % 11 + 1}-1 "
    f"N{(n + 3) % 11 + 1}-0 N{(n + 5) % 11 + 1}-0"
    for n in range(1, 31)
)
DEV = "\n".join(
    f"{n}\tU{n % 4}\t11/15/2019 9:0{n % 10}:57 PM\tN1 N2\tN{n % 11 + 1}-1 N{(n + 3) % 11 + 1}-0"
    for n in range(1, 13)
)
DATASET = """\
name: tiny
processor: mind
path: raw
text: [title]
get: Ask the owner for the files.
"""
SPACE = """\
name: tiny
data: data.yaml
model:
  hidden_size: 16
  content: {name: id}
  behavior: {name: pooling}
  predictor: {name: dot}
train: {epochs: 1}
search: {trials: 1, trainer: local}
"""


class Desk:
    """A folder with a small valid data set and space, and the command line to run on them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        for name, text in {
            "raw/train/news.tsv": NEWS,
            "raw/train/behaviors.tsv": TRAIN,
            "raw/dev/news.tsv": NEWS,
            "raw/dev/behaviors.tsv": DEV,
            "data.yaml": DATASET,
            "space.yaml": SPACE,
        }.items():
            self.write(name, text)

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new, 1))

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and stderr of `legoray <arguments>`."""
        old, sys.argv = sys.argv, ["legoray", *arguments]
        try:
            with pytest.raises(SystemExit) as caught:
                cli.main()
        finally:
            sys.argv = old
        return int(caught.value.code or 0), self.capsys.readouterr().err


@pytest.fixture
def desk(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LEGORAY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path, capsys)


def refused(desk: Desk, arguments: list[str], *words: str) -> str:
    code, said = desk.run(*arguments)
    assert code == 2, said
    assert "Traceback" not in said
    for word in words:
        assert word in said.replace("\n", " "), said
    return said


SPACE_CASES = {
    "unknown key": ("train: {epochs: 1}", "trian: {epochs: 1}", ["space.yaml:8", "'train'"]),
    "unknown train key": ("{epochs: 1}", "{epoch: 1}", ["train.epoch", "'epochs'"]),
    "unknown operator": ("{name: id}", "{name: cn}", ["space.yaml:5", "'cn'", "'cnn'"]),
    "unknown behavior": ("{name: pooling}", "{name: atention}", ["'attention'"]),
    "unknown predictor": ("{name: dot}", "{name: dots}", ["'dots'", "'dot'"]),
    "part without a name": ("{name: id}", "{}", ["model.content", "name"]),
    "part is a word": ("content: {name: id}", "content: id", ["model.content"]),
    "part is missing": ("  predictor: {name: dot}\n", "", ["predictor"]),
    "unknown setting": ("{name: id}", "{name: cnn, kernel_sice: 3}", ["'kernel_size'"]),
    "setting of a wrong type": ("{name: id}", "{name: cnn, kernel_size: big}", ["kernel_size"]),
    "impossible composition": ("{name: pooling}", "{name: none}", ["none", "dot"]),
    "heads do not divide": (
        "{name: pooling}",
        "{name: attention, heads: 5}",
        ["heads", "16"],
    ),
    "unknown metric": ("train:", "evaluate: {metrics: [auk]}\ntrain:", ["'auk'", "'auc'"]),
    "unknown select": ("train:", "evaluate: {select: ndgc@5}\ntrain:", ["ndgc@5"]),
    "metric without k": ("train:", "evaluate: {metrics: [ndcg]}\ntrain:", ["ndcg"]),
    "empty choice": ("{name: id}", "{choice: []}", ["model.content", "choice"]),
    "range upside down": ("{epochs: 1}", "{epochs: {int: [5, 2]}}", ["train.epochs", "5"]),
    "log from zero": ("{epochs: 1}", "{learning_rate: {log: [0, 1]}}", ["learning_rate"]),
    "bounds outside": ("{epochs: 1}", "{learning_rate: {log: [0.1, 9]}}", ["learning_rate", "9"]),
    "three bounds": ("{epochs: 1}", "{epochs: {int: [1, 2, 3]}}", ["train.epochs"]),
    "not a number": ("{epochs: 1}", "{weight_decay: .nan}", ["weight_decay"]),
    "key twice": ("name: tiny\n", "name: tiny\nname: other\n", ["space.yaml:2", "twice"]),
    "no such data set": ("data: data.yaml", "data: dta.yaml", ["dta.yaml"]),
    "no trials": ("trials: 1", "trials: 0", ["search.trials"]),
    "searched search": ("trials: 1", "trials: {choice: [1, 2]}", ["search.trials"]),
    "unknown trainer": ("local", "locl", ["search.trainer", "'local'"]),
    "unknown start": ("trials: 1", "trials: 1, start_with: [{model: {contnt: 1}}]", ["contnt"]),
    "unknown language model": (
        "{name: id}",
        "{name: llm, model: minilmm}",
        ["minilmm", "minilm"],
    ),
    "split out of range": ("{name: id}", "{name: llm, split: 9}", ["split", "9"]),
    "rank zero": ("{name: id}", "{name: llm, lora: {rank: 0}}", ["rank"]),
    "cut off": ("search: {trials: 1, trainer: local}", "search: {trials: 1,", ["not valid YAML"]),
}


@pytest.mark.parametrize("case", SPACE_CASES)
def test_space(desk, case):
    old, new, words = SPACE_CASES[case]
    desk.edit("space.yaml", old, new)
    refused(desk, ["search", "space.yaml"], *words)
    assert not (desk.folder / "sweeps").exists()
    assert not (desk.folder / "mlflow.db").exists()


def test_several_mistakes_come_at_once(desk):
    desk.edit("space.yaml", "{name: id}", "{name: cn}")
    desk.edit("space.yaml", "{epochs: 1}", "{epoch: 1}")
    desk.edit("space.yaml", "trials: 1", "trials: no")
    said = refused(desk, ["check", "space.yaml"], "'cnn'", "'epochs'", "search.trials")
    assert said.count("error:") == 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.yaml", "", ["empty.yaml", "is empty"]),
        ("list.yaml", "- a\n", ["list.yaml", "mapping"]),
        ("latin.yaml", "name: é".encode("latin-1"), ["latin.yaml", "UTF-8"]),
        ("absent.yaml", None, ["absent.yaml", "no such file"]),
        ("raw", None, ["raw", "folder"]),
    ],
)
def test_files_that_are_no_space(desk, name, content, words):
    if content is not None:
        desk.write(name, content)
    refused(desk, ["search", name], *words)


NOTES = "raw/notes.csv"
NOTED = "attributes: [{file: notes.csv, key: id, columns: {note: remark}}]\n"
DATASET_CASES = {
    "attribute without a file": (
        "text:",
        NOTED.replace("notes", "note") + "text:",
        ["note.csv", "there is a 'notes.csv' beside it"],
    ),
    "attribute with a wrong key": (
        "text:",
        NOTED.replace(" id", " nid") + "text:",
        ["notes.csv", "no column 'nid'", "is it 'id'?"],
    ),
    "attribute with a mistyped setting": (
        "text:",
        NOTED.replace("key", "kee") + "text:",
        ["data.yaml:4", "attributes[0].kee", "'key'"],
    ),
    "attribute by a taken name": (
        "text:",
        NOTED.replace("remark", "title") + "text:",
        ["data.yaml:4: attributes[0]", "'title'", "another name"],
    ),
    "attribute that lacks texts": (
        "text:",
        NOTED + "text:",
        ["'remark' has no text for 11 of 12 items, such as N2, N3, N4", "missing: empty"],
    ),
    "mistyped written attribute": (
        "text: [title]",
        NOTED + "text: [remarc]",
        ["data.yaml:5: text[0]", "'remarc'", "'remark'"],
    ),
    "no generated attribute": (
        "text:",
        "attributes: [{name: summary}]\ntext:",
        ["data.yaml:4: attributes[0]", "'summary'", "legoray augment"],
    ),
    "unknown key": ("text:", "txt:", ["data.yaml:4", "'text'"]),
    "unknown processor": ("processor: mind", "processor: mynd", ["mynd", "'mind'"]),
    "unknown option": ("text:", "options: {valid_shar: 0.1}\ntext:", ["'valid_share'"]),
    "option out of range": ("text:", "options: {valid_share: 1.5}\ntext:", ["valid_share", "1.5"]),
    "unknown attribute": ("[title]", "[titel]", ["titel", "'title'"]),
    "missing files": ("path: raw", "path: absent", ["absent", "Ask the owner"]),
    "unset variable": ("path: raw", "path: $LEGORAY_NOWHERE/x", ["LEGORAY_NOWHERE"]),
}


@pytest.mark.parametrize("case", DATASET_CASES)
def test_dataset(desk, case):
    old, new, words = DATASET_CASES[case]
    desk.edit("data.yaml", old, new)
    desk.write(NOTES, "id,note\nN1,fine\n")
    refused(desk, ["prepare", "data.yaml"], *words)
    assert not list((desk.folder / "home").glob("tables/*/manifest.json"))


RAW_CASES = {
    "empty file": ("raw/train/behaviors.tsv", b"", ["behaviors.tsv", "empty"]),
    "too few columns": ("raw/train/news.tsv", "N1\tsports\n", ["news.tsv:1", "8"]),
    "wrong encoding": (
        "raw/train/news.tsv",
        NEWS.encode() + "\nN99\ta\tb\té\tc\td\t[]\t[]".encode("latin-1"),
        ["news.tsv", "UTF-8"],
    ),
    "bad date": (
        "raw/train/behaviors.tsv",
        TRAIN.replace("11/10/2019 8:01:57 AM", "2019-11-10", 1),
        ["behaviors.tsv:1", "2019-11-10"],
    ),
    "bad label": ("raw/dev/behaviors.tsv", DEV.replace("-0", "-7", 1), ["behaviors.tsv:1", "-7"]),
}


@pytest.mark.parametrize("case", RAW_CASES)
def test_raw_files(desk, case):
    name, content, words = RAW_CASES[case]
    desk.write(name, content)
    refused(desk, ["prepare", "data.yaml"], *words)
    assert not list((desk.folder / "home").glob("tables/*/manifest.json"))


def test_a_zip_in_place_of_its_folder(desk):
    folder = desk.folder / "zipped"
    folder.mkdir()
    with zipfile.ZipFile(folder / "MINDsmall_train.zip", "w") as archive:
        archive.writestr("news.tsv", NEWS)
    desk.edit("data.yaml", "path: raw", "path: zipped")
    refused(desk, ["prepare", "data.yaml"], "zip")


def test_a_folder_in_place_of_a_file(desk):
    (desk.folder / "raw/train/news.tsv").unlink()
    (desk.folder / "raw/train/news.tsv").mkdir()
    refused(desk, ["prepare", "data.yaml"], "news.tsv", "folder")


def test_an_unwritable_home(desk):
    desk.write("home", "a file where the caches should go")
    refused(desk, ["prepare", "data.yaml"], "home")


def test_an_unwritable_sweep_folder(desk):
    desk.write("taken", "a file where the sweep should go")
    refused(desk, ["search", "space.yaml", "--folder", "taken"], "taken")


def own(desk: Desk, **tables: tuple[str, str | bytes]) -> None:
    """A data set of three own tables, some of them replaced."""
    parts: dict[str, tuple[str, str | bytes]] = {
        "items": ("items.csv", "item,title\na,One\nb,Two\nc,Three\n"),
        "histories": ("histories.jsonl", '{"user": "u", "items": ["a", "b"]}\n'),
        "interactions": (
            "interactions.csv",
            "impression,user,item,label,time\n1,u,c,1,10\n1,u,a,0,10\n2,u,b,1,20\n2,u,a,0,20\n",
        ),
        **tables,
    }
    for name, content in parts.values():
        desk.write(f"own/{name}", content)
    desk.write(
        "data.yaml",
        "name: own\nprocessor: own\npath: own\ntext: [title]\noptions:\n"
        f"  items: {{file: {parts['items'][0]}, key: item}}\n"
        f"  histories: {{file: {parts['histories'][0]}, user: user, items: items}}\n"
        f"  interactions: {{file: {parts['interactions'][0]}, impression: impression, user: user, "
        "item: item, label: label, time: time}\n",
    )


OWN_CASES = {
    "missing column": ({"items": ("items.csv", "itm,title\na,One\n")}, ["items.csv", "item"]),
    "bad JSON line": (
        {"histories": ("histories.jsonl", '{"user": "u", "items": ["a"]}\n{"user": \n')},
        ["histories.jsonl:2"],
    ),
    "truncated Parquet": ({"items": ("items.parquet", b"PAR1 and no more")}, ["items.parquet"]),
    "duplicate item": (
        {"items": ("items.csv", "item,title\na,One\na,Two\nc,Three\nb,Four\n")},
        ["items.csv", "'a'"],
    ),
    "label that is no label": (
        {
            "interactions": (
                "interactions.csv",
                "impression,user,item,label,time\n1,u,c,maybe,10\n1,u,a,0,10\n",
            )
        },
        ["interactions.csv", "maybe"],
    ),
    "unknown kind of file": ({"items": ("items.xlsx", b"PK")}, ["items.xlsx"]),
}


@pytest.mark.parametrize("case", OWN_CASES)
def test_own_tables(desk, case):
    tables, words = OWN_CASES[case]
    own(desk, **tables)
    refused(desk, ["prepare", "data.yaml"], *words)


def test_the_zoo_commands(desk):
    desk.write("new.txt", "A headline\n")
    refused(desk, ["leaderboard", "nowhere"], "there is no model zoo here")
    refused(desk, ["recommend", "nowhere", "--candidates", "new.txt"], "no model zoo here")
    refused(desk, ["recommend", "nowhere", "--candidates", "absent.txt"], "absent.txt")
    refused(desk, ["leaderboard", "--format", "xml"], "xml")
    assert not (desk.folder / "mlflow.db").exists()


def test_damaged_tables_are_named(desk):
    assert desk.run("prepare", "data.yaml")[0] == 0
    part = next((desk.folder / "home/tables").glob("*/items/*.parquet"))
    part.write_bytes(part.read_bytes()[:40])
    refused(desk, ["search", "space.yaml"], part.name)


def test_a_damaged_manifest_is_named(desk):
    assert desk.run("prepare", "data.yaml")[0] == 0
    manifest = next((desk.folder / "home/tables").glob("*/manifest.json"))
    manifest.write_text(json.dumps({"name": "tiny"}))
    refused(desk, ["search", "space.yaml"], "manifest.json")


def test_own_parquet_with_a_wrong_type(desk, tmp_path):
    own(desk, items=("items.parquet", b""))
    pq.write_table(pa.table({"item": ["a", "b"], "title": [[1], [2]]}), "own/items.parquet")
    refused(desk, ["prepare", "data.yaml"], "items.parquet", "title")


def test_damaged_hidden_states_are_named(desk):
    desk.edit("space.yaml", "{name: id}", "{name: llm, split: 5, length: 16}")
    assert desk.run("check", "space.yaml")[0] == 0
    (states,) = (desk.folder / "home/states").glob("*/blocks/*.safetensors")
    content = bytearray(states.read_bytes())
    content[-3:] = b"xyz"
    states.write_bytes(content)
    # what a process has verified it does not read again: a second process is what a user starts
    command = [sys.executable, "-m", "legoray.cli", "check", "space.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    assert str(states.parent) in done.stderr
    assert "damaged" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_damaged_checkpoint_ends_the_search_and_loses_nothing(desk):
    assert desk.run("search", "space.yaml")[0] == 0
    sweep = desk.folder / "sweeps/tiny"
    # as a killed driver would have left it: one trial under way, with a checkpoint cut short
    info = json.loads((sweep / "sweep.json").read_text())
    (sweep / "sweep.json").write_text(json.dumps({**info, "state": "searching", "ended": ""}))
    (sweep / "study.journal").unlink()
    record = json.loads((sweep / "trials/0.json").read_text())
    (sweep / "trials/0.json").write_text(json.dumps({**record, "status": "running"}))
    for other in sweep.glob("trials/[1-9]*.json"):
        other.unlink()
    checkpoint = sweep / "models" / record["key"] / "last/checkpoint.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"cut short")
    refused(desk, ["search", "space.yaml"], str(checkpoint), "damaged", "delete the folder")
    checkpoint.unlink()
    assert desk.run("search", "space.yaml")[0] == 0
    assert json.loads((sweep / "trials/0.json").read_text())["status"] == "completed"


def test_a_template_is_told_the_nearest_written_attribute(desk):
    desk.write(NOTES, "id,note\nN1,fine\n")
    noted = NOTED.replace("columns", "missing: empty, columns")
    desk.edit("data.yaml", "text:", noted + "text:")
    desk.edit("space.yaml", "{name: id}", "{name: cnn, attributes: [remarc]}")
    refused(desk, ["check", "space.yaml"], "'remarc'", "did you mean 'remark'?")
    desk.edit("space.yaml", "{name: cnn, attributes: [remarc]}",
              '{name: vector, model: minilm, template: "{remarc}"}')  # fmt: skip
    refused(desk, ["check", "space.yaml"], "'remarc'", "did you mean 'remark'?")
