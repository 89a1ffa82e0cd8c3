"""Computing what the store lacks: block by block, several units in one pass.

Each block is whole on the disk before the next one is counted as done, so that whoever starts again
after a kill computes the rest alone. One process drives the work on a unit; the others wait.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from legoray.data.built import Say
from legoray.data.tensorfile import UNFINISHED, read_header
from legoray.errors import InputError, Problem
from legoray.llm.blocks import (
    block_file,
    block_name,
    compute_block,
    known_texts,
    look_up,
    set_file,
    write_blocks,
    write_set,
)
from legoray.llm.compute import Lower, NotFiniteError
from legoray.llm.load import facts, load_base, load_tokenizer
from legoray.llm.plan import Digests, Job, block_size, part_of, plan_blocks, text_digests
from legoray.llm.spread import Outcome, run_on_ray, use_ray
from legoray.llm.text import Encoded, encode, texts_fingerprint
from legoray.llm.units import WHAT, Unit
from legoray.storage.folders import get_file

_SPARE = 64 * 2**20  # bytes to leave free on the disk
_SECONDS_BETWEEN_NEWS = 15.0
Describe = Callable[[int], tuple[str, str]]


@dataclass(frozen=True)
class Work:
    """What is to be computed of some texts, for units of one family."""

    units: tuple[Unit, ...]
    folders: tuple[Path, ...]
    encoded: Encoded
    digests: Digests
    jobs: tuple[Job, ...]

    @property
    def texts(self) -> int:
        """How many texts some unit lacks."""
        return len(np.unique(np.concatenate([job.texts for job in self.jobs])))

    @property
    def tokens(self) -> int:
        """Tokens of all blocks."""
        return sum(int(self.encoded.lengths[job.texts].sum()) for job in self.jobs)

    def bytes_of(self, width: int) -> int:
        """Bytes that the blocks will have, where a state has `width` numbers."""
        total = 0
        for job in self.jobs:
            tokens = int(self.encoded.lengths[job.texts].sum())
            for number in job.units:
                unit = self.units[number]
                rows = len(job.texts) * len(unit.layers) if unit.pooling else tokens
                total += rows * width * (4 if unit.dtype == "float32" else 2)
                total += 24 * len(job.texts)
        return total


def build(folders: Mapping[Unit, Path], texts: pa.Array, describe: Describe, say: Say) -> None:
    """Compute what units of one family lack of some texts, and write the lists of these texts.

    Args:
        folders: unit -> its folder; the caller holds their locks.
        texts: the filled-in templates of all items.
        describe: row -> the item's key and text, for an error.
        say: told what is done.

    Raises:
        InputError: the disk is full or cannot be written; a hidden state is NaN or infinite.
        DamagedError: a stored block is cut short.
    """
    try:
        _sweep(folders.values())
        work = plan(folders, texts)
        if work.jobs:
            _compute(work, describe, say)
        for folder in folders.values():
            names, places = look_up(known_texts(folder), work.digests)
            write_set(set_file(folder, texts_fingerprint(texts)), names, places)
    except OSError as error:
        store = next(iter(folders.values())).parent
        hint = "free some space, or set LEGORAY_HOME to another disk"
        message = f"cannot be written: {error.strerror}"
        raise InputError(Problem(str(store), message, hint)) from None


def plan(folders: Mapping[Unit, Path], texts: pa.Array) -> Work:
    """What is to be computed."""
    family = next(iter(folders)).family
    encoded = encode(load_tokenizer(family.model), texts, family.length)
    digests = text_digests(encoded)
    known = [known_texts(folder).digests for folder in folders.values()]
    size = block_size(family.length, facts(family.model).hidden_size)
    jobs = plan_blocks(encoded, digests, known, size)
    return Work(tuple(folders), tuple(folders.values()), encoded, digests, tuple(jobs))


def _sweep(folders: Iterable[Path]) -> None:
    """Remove what killed processes left half written."""
    for folder in folders:
        for left in folder.glob(f"*/{UNFINISHED}*"):
            left.unlink(missing_ok=True)


def _compute(work: Work, describe: Describe, say: Say) -> None:
    family = work.units[0].family
    size = work.bytes_of(facts(family.model).hidden_size)
    _check_disk(work.folders[0].parent, size)
    say(_news(work, size))
    started = time.monotonic()
    run = run_on_ray if use_ray(work, say) else run_here
    total, done = work.tokens, 0
    told = time.monotonic()
    for outcome in run(work):
        _check_outcome(work, outcome, describe)
        done += int(work.encoded.lengths[work.jobs[outcome.job].texts].sum())
        if time.monotonic() - told > _SECONDS_BETWEEN_NEWS:
            told = time.monotonic()
            say(f"{family.model}: {done / total:.0%} of the {WHAT} are computed")
    say(f"{family.model}: {WHAT} stored in {time.monotonic() - started:.1f} s{_cost(work)}")


def run_here(work: Work) -> Iterator[Outcome]:
    """Compute all blocks in this process, one after another."""
    family = work.units[0].family
    lower = Lower(load_base(family.model, family.precision))  # type: ignore[arg-type]
    for number, job in enumerate(work.jobs):
        units = [work.units[one] for one in job.units]
        try:
            part = part_of(work.encoded, job.texts)
            gathered = compute_block(lower, units, part, work.digests[job.texts])
        except NotFiniteError as error:
            yield Outcome(number, bad=(error.text, error.layer))
            return
        write_blocks([work.folders[one] for one in job.units], gathered)
        yield Outcome(number)


def _check_outcome(work: Work, outcome: Outcome, describe: Describe) -> None:
    if outcome.problems:
        raise InputError(*outcome.problems)
    job = work.jobs[outcome.job]
    family = work.units[0].family
    if outcome.bad is not None:
        text, layer = outcome.bad
        raise not_finite(family.model, family.precision, layer, *describe(int(job.texts[text])))
    name = block_name(work.digests[job.texts])
    lost = [n for n in job.units if not get_file(block_file(work.folders[n], name))]
    if lost:
        where = str(work.folders[lost[0]])
        message = (
            f"a worker on {outcome.node or 'this node'} wrote the block {name}; it is not here"
        )
        hint = "LEGORAY_HOME must be storage that every node sees"
        raise InputError(Problem(where, message, hint))


def not_finite(model: str, precision: str, layer: int, key: str, text: str) -> InputError:
    """The error of a hidden state that is no number."""
    return InputError(
        Problem(
            f"item {key}",
            f"the hidden states of {model} after layer {layer} are NaN or infinite for "
            f"the text '{text}'",
            f"computed in {precision}; try precision: float32, or look at the model's weights",
        )
    )


def _check_disk(store: Path, size: int) -> None:
    free = shutil.disk_usage(store).free
    if free < size + _SPARE:
        raise InputError(
            Problem(
                str(store),
                f"the hidden states need {size / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free",
                "free some space (`legoray store prune`), set LEGORAY_HOME to a larger disk, or "
                "lower the model's length",
            )
        )


def _news(work: Work, size: int) -> str:
    whole = sorted(unit.layers[0] for unit in work.units if not unit.pooling)
    after = ", ".join(str(layer) for layer in dict.fromkeys(whole))
    words = [f"after layer {after}"] if whole else []
    words += [unit.words for unit in work.units if unit.pooling]
    missing = work.texts
    known = len(np.unique(work.digests)) - missing
    texts = f"{missing:,} new texts ({known:,} known)" if known else f"{missing:,} texts"
    return (
        f"{work.units[0].family.model}: computing {WHAT} {' and '.join(words)} of {texts} "
        f"({work.tokens:,} tokens, {size / 1e6:,.0f} MB)"
    )


def _cost(work: Work) -> str:
    """What the stored type costs, of the blocks that were computed now."""
    squares = errors = worst = 0.0
    for job in work.jobs:
        name = block_name(work.digests[job.texts])
        for number in job.units:
            note = read_header(block_file(work.folders[number], name), WHAT).note
            squares, errors = squares + float(note["squares"]), errors + float(note["errors"])
            worst = max(worst, float(note["worst"]))
    if not errors:
        return ""
    return f"; storing bfloat16 costs {(errors / squares) ** 0.5:.2%} (worst row {worst:.2%})"
