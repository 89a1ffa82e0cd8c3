"""Tables in the form of the paper's: named models, parts, percent."""

from __future__ import annotations

import pytest
from made_sweeps import sweep_info, trial
from rich.console import Console

from legoray.errors import InputError
from legoray.records import write_json
from legoray.search.closing import closing
from legoray.search.phases import Goal
from legoray.search.sweep import Sweep
from legoray.zoo.board import entry_of_record, entry_of_run, make_boards
from legoray.zoo.fields import closing_metrics, described, fixed_tags
from legoray.zoo.leaderboard import print_leaderboard
from legoray.zoo.paper import paper_lines, print_paper, to_markdown

LLM = {"name": "llm", "model": "minilm", "template": None}
MODELS = {
    "nrms": ("attention", "attention", "dot"),
    "naml": ("cnn", "additive", "dot"),
    "dire": (LLM, "attention", "dot"),
    "fm": ("id", "pooling", "fm"),
    "once": ({**LLM, "template": "{title-augmented}"}, "attention", "dot"),
}


def named(number, preset, *, phase="final", seed=8, auc=0.6):
    """A training of a preset."""
    parts = [part if isinstance(part, dict) else {"name": part} for part in MODELS[preset]]
    record = trial(number, auc=auc, seed=seed, phase=phase)
    kinds = dict(zip(("content", "behavior", "predictor"), parts, strict=True))
    config = {**record.config, "model": {"hidden_size": 64, "preset": preset, **kinds}}
    label = f"{preset} ({'+'.join(part['name'] for part in parts)})"
    test = {"auc": auc - 0.01, "mrr": 0.25, "ndcg@5": 0.3} if phase == "final" else {}
    changes = {"config": config, "label": label, "test": test, "key": f"k{number}"}
    return record.model_copy(update={**changes, "params": {"model/preset": preset}})


@pytest.fixture
def records():
    found = [named(n, preset, phase="search") for n, preset in enumerate(MODELS)]
    for preset in MODELS:
        for seed in (8, 9):
            found.append(named(len(found), preset, seed=seed, auc=0.5 + seed / 100))
    baseline = trial(len(found), phase="baseline", label="random").model_copy(
        update={"config": {}, "params": {}, "test": {"auc": 0.5, "mrr": 0.2, "ndcg@5": 0.2034}}
    )
    return [*found, baseline]


def test_text_is_augmented_where_the_data_set_names_it():
    """By the data set's `text`, the model's settings saying nothing of it."""
    plain = named(0, "naml").model_copy(update={"reads": {"title": ""}})
    later = named(1, "naml").model_copy(update={"reads": {"title-augmented": "0123"}})
    assert [described(record)["text"] for record in (plain, later)] == ["original", "augmented"]
    lines = paper_lines(board_of([plain, later]))
    assert [line.words[0] for line in lines] == ["original", "augmented"]
    described_too = plain.model_copy(update={"reads": {"title": "", "summary": "4567"}})
    assert described(described_too)["text"] == "with summary"
    said = to_markdown(board_of([plain, described_too, named(2, "once")]))
    assert "| with summary | NAML |" in said
    once = named(2, "once").model_copy(deep=True)
    once.config["model"]["content"]["template"] = "{summary}"
    once = once.model_copy(update={"reads": {"summary": "4567"}})
    assert "no language model" not in to_markdown(board_of([once]))
    tags = fixed_tags(later, sweep_info())
    assert tags["reads"] == "title-augmented (0123)"


def board_of(records):
    (board,) = make_boards(entry_of_record(record, sweep_info()) for record in records)
    return board


def test_the_rows_are_in_the_papers_order(records):
    lines = paper_lines(board_of(records))
    assert [line.words for line in lines] == [
        ("original", "NAML", "cnn", "additive", "dot"),
        ("original", "NRMS", "attention", "attention", "dot"),
        ("original", "DIRE", "llm (minilm)", "attention", "dot"),
        ("original", "FM", "id", "pooling", "fm"),
        ("augmented", "ONCE", "llm (minilm)", "attention", "dot"),
        ("", "random", "", "", ""),
    ]


def test_the_numbers_are_percent_over_seeds(records):
    lines = paper_lines(board_of(records))
    assert lines[0].cells == {
        "auc": "57.50 ± 0.71",
        "mrr": "25.00 ± 0.00",
        "ndcg@5": "30.00 ± 0.00",
    }
    assert lines[0].seeds == 2
    assert lines[-1].cells["ndcg@5"] == "20.34"


def test_mlflow_says_the_same(records):
    info = sweep_info()
    runs = [entry_of_run(fixed_tags(r, info), closing_metrics(r)) for r in records]
    own = [entry_of_record(record, info) for record in records]
    assert [run.model for run in runs] == [entry.model for entry in own]
    assert [run.label for run in runs] == [entry.label for entry in own]
    tags = fixed_tags(records[0], info)
    assert tags["composition"] == "attention+attention+dot"
    assert tags["preset"] == "nrms"


def test_models_without_a_preset_go_by_their_parts(records):
    plain = trial(90, phase="final", label="cnn+gru+dot")
    plain = plain.model_copy(update={"test": {"auc": 0.6}, "key": "plain"})
    (line,) = [li for li in paper_lines(board_of([*records, plain])) if li.words[3] == "gru"]
    assert line.words == ("original", "", "cnn", "gru", "dot")
    assert line.cells["mrr"] == ""
    assert described(plain)["content"] == "cnn"


def test_a_model_for_augmented_text_that_read_plain_text_says_so(records, capsys):
    assert "no language model" not in to_markdown(board_of(records))
    plain = named(91, "once")
    plain.config["model"]["content"]["template"] = "{title}"
    assert "ONCE: read text that no language model had" in to_markdown(board_of([plain]))
    first, second = named(92, "naml"), named(93, "naml")
    second.config["model"]["preset"] = second.params["model/preset"] = "naml-augmented"
    said = "NAML, its second row: read text that no language model had augmented"
    assert said not in to_markdown(board_of([first]))
    assert said in to_markdown(board_of([first, second]))


def test_as_text(records, capsys):
    board = board_of(records)
    print_paper(board, Console(width=120, highlight=False))
    out = capsys.readouterr().out
    assert "MIND sample (synthetic data), test split, in percent" in out
    for word in ("data", "model", "content", "behavior", "predictor", "AUC", "MRR", "nDCG@5"):
        assert word in out
    assert "mean ± standard deviation over 2 seeds" in out
    assert "DIRE: its paper's language model is Llama 1; what was run stands in brackets" in out
    text = to_markdown(board)
    assert "| original | DIRE | llm (minilm) | attention | dot | 57.50 ± 0.71 | " in text


def test_a_sweep_of_presets_closes_with_it(records, tmp_path, capsys):
    info = sweep_info(state="finished", ended="exhausted")
    write_json(tmp_path / "sweep.json", info)
    for record in records:
        write_json(tmp_path / "trials" / f"{record.number}.json", record)
    closing(
        Console(width=120, highlight=False),
        Sweep(tmp_path, info),
        goal=Goal("auc", "max"),
        again="",
        links=[],
    )
    out = capsys.readouterr().out
    assert "every configuration of the space has been tried" in out
    assert "llm (minilm)" in out
    assert "--format paper" in out
    print_leaderboard(tmp_path, form="paper", console=Console(width=120, highlight=False))
    assert "llm (minilm)" in capsys.readouterr().out


def test_rows_of_one_label_say_what_differs(tmp_path, capsys):
    info = sweep_info(state="finished", ended="exhausted")
    for number, text in enumerate(["title", "summary"]):
        chosen = {"model/content.cnn/attributes": text, "train/learning_rate": 0.001}
        record = trial(number, phase="final", label="cnn+additive+dot", test={"auc": 0.6})
        record = record.model_copy(update={"params": chosen, "reads": {text: ""}})
        write_json(tmp_path / "trials" / f"{number}.json", record)
    goal, console = Goal("auc", "max"), Console(width=150, highlight=False)
    closing(console, Sweep(tmp_path, info), goal=goal, again="", links=[])
    out = capsys.readouterr().out
    for text in ("title", "summary"):
        assert f"cnn+additive+dot attributes={text} " in out, "the learning rate is the same"


def test_without_a_test_there_is_no_table(records):
    searched = [record for record in records if record.phase == "search"]
    with pytest.raises(InputError, match="nothing was measured on the test split"):
        to_markdown(board_of(searched))
