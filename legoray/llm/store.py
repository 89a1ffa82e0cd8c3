"""The store of hidden states: the lower layers run once per text, and never again.

Everything that decides a hidden state but the text is in the key of its unit
(`legoray.llm.units`); a text is known by its token ids. All trials, workers and nodes share
`<home>/states`; one process drives the computation, the others wait for it. States of every token
and pooled ones (`legoray.llm.pooled`) stand here side by side, and one pass over the texts serves
all units of a model, a template, a length and a precision. A file that was damaged later is an
error that says so, not a silent recomputation: whoever shares the store should learn of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from legoray.data.built import Say, locked, quietly
from legoray.data.recipes import InputSizes, Recipe, StateRecipe, States
from legoray.data.shelf import note_use
from legoray.errors import DamagedError, InputError
from legoray.llm.blocks import (
    block_file,
    compute_block,
    known_of,
    look_up,
    open_block,
    read_set,
    set_file,
)
from legoray.llm.build import build, not_finite
from legoray.llm.compute import Lower, NotFiniteError
from legoray.llm.load import facts, load_base, load_tokenizer
from legoray.llm.mapped import MappedRows
from legoray.llm.nodecache import local_folder
from legoray.llm.plan import block_size, part_of, plan_blocks, text_digests
from legoray.llm.text import (
    check_attributes,
    encode,
    render,
    template_attributes,
    texts_fingerprint,
)
from legoray.llm.units import META, Family, Unit, open_unit, unit_behind, unit_of, write_note
from legoray.storage.address import address_of
from legoray.storage.folders import get_file, names_below, send_file


class StateFeatures:
    """Hidden states of n items, gathered by item id. Item 0 is padding and stands nowhere."""

    def __init__(self, rows: MappedRows, recipe: StateRecipe) -> None:
        """States whose row i is item i + 1's."""
        self.rows = rows
        self.recipe = recipe

    @property
    def sizes(self) -> InputSizes:
        """The width of a hidden state."""
        return InputSizes(width=self.rows.width)

    @property
    def item_count(self) -> int:
        """Rows of an item table, the padding row included."""
        return len(self.rows) + 1

    def lengths(self, items: Tensor) -> Tensor:
        """`[N]` tokens of items `[N]`."""
        return self.rows.count[items - 1]

    def gather(self, items: Tensor) -> States:
        """States of items `[N]` (ids from 1), padded with zeros to the longest of them."""
        return States(*self.rows.gather(items - 1))

    def save_assets(self, folder: Path) -> None:
        """Note in a model's folder which language model it stands on; its weights stay outside."""
        write_note(self.recipe, folder)


def ensure_states(
    recipes: Recipe | Sequence[Recipe], tables: Path, home: Path, say: Say = quietly
) -> list[Path]:
    """See that what recipes read of language models is in the store; compute what is not.

    Recipes of one model, template, length and precision are computed in one pass.

    Args:
        recipes: what is wanted; those that read no language model's states are passed over.
        tables: folder of the prepared tables.
        home: folder of shared caches; on a cluster, storage that every node sees.
        say: told what is computed or waited for.

    Returns:
        The folders of the units, one per recipe that reads one.

    Raises:
        InputError: a template names an attribute that the tables lack; a stored file is damaged;
            the disk is full; a hidden state is NaN or infinite; the language model is missing.
    """
    wanted = list(recipes) if isinstance(recipes, Sequence) else [recipes]
    units = _all_units(wanted, tables)
    lists = ensure_units(units, tables, home, say)
    for unit in lists:
        _opened(unit, lists[unit], tables, home, say)
    return [lists[unit].parents[1] for unit in units]


def open_states(recipe: StateRecipe, tables: Path, home: Path, say: Say = quietly) -> StateFeatures:
    """The stored states of all items of the tables, computed first where they are missing.

    Raises:
        InputError: as `ensure_states`.
    """
    return StateFeatures(open_rows_of(unit_of(recipe), tables, home, say), recipe)


def open_rows_of(unit: Unit, tables: Path, home: Path, say: Say) -> MappedRows:
    """The rows of a unit for all items of the tables, computed first where they are missing.

    Raises:
        InputError: as `ensure_states`.
    """
    check_attributes(unit.family.template, _attributes(tables), f"model {unit.family.model}")
    path = ensure_units([unit], tables, home, say)[unit]
    return _opened(unit, path, tables, home, say)


def ensure_units(units: Sequence[Unit], tables: Path, home: Path, say: Say) -> dict[Unit, Path]:
    """See that units have all texts of the tables; the files of the lists of these texts.

    Raises:
        InputError: as `ensure_states`.
    """
    found: dict[Unit, Path] = {}
    for family in dict.fromkeys(unit.family for unit in units):
        members = [unit for unit in dict.fromkeys(units) if unit.family == family]
        found |= _ensure_family(members, tables, home / "states", say)
    return found


def states_of_texts(recipe: StateRecipe, rows: Sequence[dict[str, str]]) -> StateFeatures:
    """The states of some items given as attributes, computed now and held in memory.

    Args:
        recipe: what to compute.
        rows: one mapping attribute -> text per item; the first is item 1.

    Raises:
        InputError: a row lacks an attribute of the template, or as `ensure_states`.
    """
    return StateFeatures(rows_of_new(unit_of(recipe), rows), recipe)


def rows_of_new(unit: Unit, rows: Sequence[dict[str, str]]) -> MappedRows:
    """The rows of a unit for items given as attributes, computed now and held in memory.

    The texts are cut into blocks as in the store, so that the numbers are the store's.

    Raises:
        InputError: as `states_of_texts`.
    """
    texts = _texts_of_rows(unit.family.template, rows)
    family = unit.family
    encoded = encode(load_tokenizer(family.model), texts, family.length)
    lower = Lower(load_base(family.model, family.precision))  # type: ignore[arg-type]
    digests = text_digests(encoded)
    size = block_size(family.length, facts(family.model).hidden_size)
    jobs = plan_blocks(encoded, digests, [np.zeros(0, "S16")], size)
    blocks, contents = [], []
    for job in jobs:
        try:
            part = part_of(encoded, job.texts)
            (one,) = compute_block(lower, [unit], part, digests[job.texts])
        except NotFiniteError as error:
            row = int(job.texts[error.text])
            told = (family.model, family.precision, error.layer, str(row + 1), str(texts[row]))
            raise not_finite(*told) from None
        tensors = one.tensors()
        blocks.append(tensors["h"])
        contents.append((digests[job.texts], tensors["offsets"].numpy()))
    if not blocks:
        blocks = [torch.empty(0, lower.width(unit.layers[0]), dtype=getattr(torch, unit.dtype))]
    known = known_of([str(number) for number in range(len(contents))], contents)
    return MappedRows(blocks, look_up(known, digests)[1])


def _all_units(recipes: Sequence[Recipe], tables: Path) -> list[Unit]:
    """The units behind recipes; all that is wrong with any of them is told at once."""
    units, problems = [], []
    for recipe in recipes:
        try:
            unit = unit_behind(recipe)
            if unit is not None:
                family = unit.family
                check_attributes(family.template, _attributes(tables), f"model {family.model}")
                units.append(unit)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return units


def _ensure_family(units: Sequence[Unit], tables: Path, store: Path, say: Say) -> dict[Unit, Path]:
    texts = _texts_of(units[0].family, tables)
    fingerprint = texts_fingerprint(texts)
    folders = {unit: open_unit(store, unit) for unit in units}
    lists = {unit: set_file(folder, fingerprint) for unit, folder in folders.items()}
    for path in lists.values():
        _fetch(path, say)
    if all(_whole(path) for path in lists.values()):
        return lists
    name = units[0].family.model
    waiting = f"{name}: another process computes these hidden states; waiting for it"
    with contextlib.ExitStack() as locks:
        # always in one order, so that two processes cannot wait for each other
        for folder in sorted(folders.values()):
            locks.enter_context(locked(folder, waiting, say))
        missing = {unit: folders[unit] for unit, path in lists.items() if not _whole(path)}
        if missing:
            for unit in missing:
                open_unit(store, unit)  # it may have been pruned while this process waited
                _fetch_blocks(folders[unit])
            build(missing, texts, lambda row: (item_key(tables, row), str(texts[row])), say)
    return lists


def _fetch(path: Path, say: Say) -> None:
    """Where the store mirrors an address: a list and its blocks, if another node has made them."""
    if address_of(path) is None or _whole(path):
        return
    folder = path.parents[1]
    with locked(folder, "another process fetches these hidden states; waiting for it", say):
        if get_file(path):
            for name in read_set(path)[0]:
                get_file(block_file(folder, name))


def _fetch_blocks(folder: Path) -> None:
    """All blocks that others have made of a unit, so that none is computed twice."""
    for name in names_below(folder / "blocks"):
        get_file(folder / "blocks" / name)
    send_file(folder / META)


def _whole(path: Path) -> bool:
    """Whether a list and all of its blocks are there."""
    if not path.exists():
        return False
    names, _ = read_set(path)
    return all(block_file(path.parents[1], name).exists() for name in names)


def _opened(unit: Unit, path: Path, tables: Path, home: Path, say: Say) -> MappedRows:
    """The rows of a list; computed again where they were pruned before they were open."""
    try:
        return _open(path, say)
    except DamagedError:
        if _whole(path):
            raise
        return _open(ensure_units([unit], tables, home, say)[unit], say)


def _open(path: Path, say: Say) -> MappedRows:
    folder = path.parents[1]
    names, places = read_set(path)
    own = local_folder(folder, names, say)
    blocks = [open_block(block_file(own, name), folder.name) for name in names]
    for used in {folder, own}:
        note_use(used)
    return MappedRows(blocks, places)


def _attributes(tables: Path) -> list[str]:
    from legoray.data.load import read_manifest

    return read_manifest(tables).attributes


def _texts_of(family: Family, tables: Path) -> pa.Array:
    from legoray.data.load import load_items

    names = template_attributes(family.template)
    table = load_items(tables, names)
    return render(family.template, {name: table[name] for name in names})


def _texts_of_rows(template: str, rows: Sequence[dict[str, str]]) -> pa.Array:
    known = sorted(set.intersection(*map(set, rows))) if rows else template_attributes(template)
    check_attributes(template, known, "items")
    names = template_attributes(template)
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in names}
    return render(template, columns)


def item_key(tables: Path, row: int) -> str:
    """The raw data's key of the item in a row of the items table."""
    from legoray.data.load import load_items

    return str(load_items(tables, ["key"])["key"][row])
