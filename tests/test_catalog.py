"""`legoray catalog`: what is listed, counted and explained, without importing the parts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from legoray import cli
from legoray.model.compose import compositions, explain
from legoray.model.parts import KINDS, TABLES, count_compositions, declared
from legoray.model.presets import names, preset
from legoray.model.registry import part_class


@pytest.fixture
def catalog(monkeypatch, capsys):
    """Runs the command; its exit code, output and errors."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["legoray", "catalog", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        told = capsys.readouterr()
        return caught.value.code or 0, told.out, told.err

    return run


def test_what_is_read_out_of_the_source_is_what_the_classes_say():
    for kind in KINDS:
        for part in declared(kind):
            cls = part_class(kind, part.name)
            assert part.summary == cls.__doc__.strip().splitlines()[0]
            assert part.paper == cls.paper
            states = {"behavior": [getattr(cls, "produces", "")], "content": []}
            assert part.states == frozenset(states.get(kind, getattr(cls, "accepts", ())))


def test_the_count_is_that_of_the_compositions():
    assert count_compositions() == len(compositions()) >= 3000


def test_the_list_has_one_line_for_everything(catalog):
    code, out, _ = catalog()
    lines = out.splitlines()
    assert code == 0
    for kind, table in TABLES.items():
        for name in table:
            paper = part_class(kind, name).paper
            assert any(line.split()[:1] == [name] and paper in line for line in lines), name
    for name in names():
        (line,) = [li for li in lines if li.split()[:2] == [name, preset(name).composition()]]
        assert preset(name).title in line
    assert f"{len(compositions()):,} valid compositions" in lines[-2]
    rows = [line for line in lines if line.startswith("  ")]
    starts = {
        kind: {
            row.index(p.summary[:20])
            for p in declared(kind)
            for row in rows
            if row.split()[0] == p.name and p.summary[:20] in row
        }
        for kind in KINDS
    }
    assert all(len(columns) == 1 for columns in starts.values()), "aligned"


def test_a_terminal_cuts_the_lines(capsys):
    from rich.console import Console

    from legoray.model.catalog import print_catalog

    print_catalog(Console(width=80, force_terminal=True, color_system=None))
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["explain", "none", "dot"], "none+dot is not valid: predictor 'dot' reads one vector"),
        (["explain", "cnn", "none", "dot"], "'none' goes with: din"),
        (["--explain", "none+dot"], "'dot' goes with: pooling, additive, attention"),
        (["explain", "cnn+additive+dot"], "cnn+additive+dot is valid"),
        (["explain", "poly-attention", "miner"], "poly-attention+miner is valid"),
        (["explain", "vector", "attention"], "any content operator goes with any other part"),
    ],
)
def test_compositions_are_explained(catalog, words, told):
    code, out, _ = catalog(*words)
    assert code == 0
    assert told in out


def test_the_explanation_is_that_of_the_check(catalog):
    _, out, _ = catalog("explain", "cnn", "poly-attention", "dot")
    assert str(explain("cnn", "poly-attention", "dot")) in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["explain", "none", "dt"], "there is no predictor 'dt' (did you mean 'dot'?)"),
        (["explain", "cn", "none", "din"], "there is no content 'cn' (did you mean 'cnn'?)"),
        (["explain"], "two or three parts were expected"),
        (["explan", "none", "dot"], "did you mean 'explain'?"),
    ],
)
def test_mistakes(catalog, words, told):
    code, _, err = catalog(*words)
    assert code == 2
    assert told in err


def test_listing_imports_no_torch():
    code = (
        "import sys; sys.argv = ['legoray', 'catalog']\n"
        "from legoray import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
