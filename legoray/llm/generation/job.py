"""What `legoray augment` is asked for, checked and put together: who is asked what about whom."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legoray.data.attributes import TAKEN, of_other_data
from legoray.data.evidence import Evidence, contradicts, evidence_of
from legoray.data.schema import Manifest
from legoray.data.written import Provenance, read_meta
from legoray.errors import InputError, Problem, unknown
from legoray.llm.generation import kept
from legoray.llm.generation.endpoint import address, key_from_environment
from legoray.llm.generation.local import Precision, identity
from legoray.llm.generation.prompt import PromptConfig
from legoray.llm.generation.questions import Questions, check_raw, questions_of

DEFAULT_MODEL = "smollm2"


@dataclass(frozen=True)
class Asked:
    """What the user wants."""

    dataset: Path
    prompt: str
    model: str | None = None
    name: str | None = None
    attributes: tuple[str, ...] = ()
    limit: int | None = None
    batch: int = 16
    seed: int = 1
    temperature: float = 0.0
    precision: str | None = None
    endpoint: str | None = None
    endpoint_model: str | None = None
    concurrency: int = 8
    timeout: float = 120.0
    overwrite: bool = False


@dataclass(frozen=True)
class Job:
    """What is asked of whom, and where it is kept."""

    asked: Asked
    prompt: PromptConfig
    folder: Path
    questions: Questions
    sources: list[str]
    recipe: dict[str, Any]
    provenance: Provenance
    evidence: Evidence  # of which data

    def note(self, counts: Counter[str]) -> None:
        kept.note(
            self.folder,
            of=self.prompt.of,
            provenance=self.provenance,
            counts=counts,
            evidence=self.evidence,
        )


def writer_of(asked: Asked) -> dict[str, str]:
    """Who writes, as it is recorded."""
    if asked.endpoint is None:
        if asked.endpoint_model:
            raise InputError(Problem("--endpoint-model", "is for a server", "give --endpoint too"))
        return identity(asked.model or DEFAULT_MODEL, precision_of(asked.precision))
    address(asked.endpoint)
    key_from_environment()
    if not asked.endpoint_model:
        message = "which of the server's models writes?"
        raise InputError(Problem("--endpoint-model", message, "give its name there"))
    if asked.model or asked.precision:
        given = "--model" if asked.model else "--precision"
        raise InputError(Problem(given, "is for a model that runs here, not for a server"))
    return {"model": asked.endpoint_model}


def precision_of(given: str | None) -> Precision:
    """bfloat16 on a GPU, where it is fast; float32 on a CPU, where answers are surer with it."""
    import torch

    known: dict[str, Precision] = {"float32": "float32", "bfloat16": "bfloat16"}
    if given is None:
        return "bfloat16" if torch.cuda.is_available() else "float32"
    if given not in known:
        raise InputError(unknown("precision", given, list(known), "--precision"))
    return known[given]


def check_name(name: str, manifest: Manifest) -> None:
    mine = {n for n, table in manifest.written.items() if table.made == "generated"}
    taken = [n for n in (*manifest.attributes, *manifest.user_attributes) if n not in mine]
    check_raw(name, [*TAKEN, *taken], "items or users")


def job_of(
    asked: Asked,
    prompt: PromptConfig,
    by: dict[str, str],
    folder: Path,
    tables: Path,
    manifest: Manifest,
) -> Job:
    if not asked.overwrite:
        _check_of_these(folder, tables, manifest)
    reads = _reads(asked, prompt, folder, manifest)
    _check_not_itself(folder.name, [*prompt.names(), *reads])
    questions = questions_of(tables, prompt, reads)
    recipe = {
        "version": 1,
        "prompt": prompt.model_dump(exclude={"name", "attribute"}),
        "attributes": reads,
        "seed": asked.seed,
        "temperature": asked.temperature,
        "by": by,
    }
    text = "\n\n".join(part for part in prompt.texts() if part)
    provenance = Provenance(
        model=by["model"],
        revision=by.get("revision", ""),
        weights=by.get("weights", ""),
        prompt=prompt.name,
        prompt_text=text,
        prompt_sha256=hashlib.sha256(text.encode()).hexdigest(),
        seed=asked.seed,
        settings={"recipe": recipe, "endpoint": address(asked.endpoint) if asked.endpoint else ""},
    )
    sources = kept.sources_of(questions, recipe)
    evidence = evidence_of(tables, manifest)
    return Job(asked, prompt, folder, questions, sources, recipe, provenance, evidence)


def _check_of_these(folder: Path, tables: Path, manifest: Manifest) -> None:
    """Refuse to add to texts of another data set of the same name.

    Raises:
        InputError: they are.
    """
    known = (folder / "meta.json").exists()
    if known and contradicts(read_meta(folder).evidence, tables, manifest):
        raise InputError(of_other_data(str(folder), folder))


def _read_before(folder: Path, asked: Asked) -> list[str]:
    """What was read for this attribute so far."""
    try:
        recipe = read_meta(folder).provenance.settings.get("recipe", {})
    except InputError:
        if asked.overwrite or not (folder / "meta.json").exists():
            return []
        raise
    return [str(name) for name in recipe.get("attributes", [])]


def _reads(asked: Asked, prompt: PromptConfig, folder: Path, manifest: Manifest) -> list[str]:
    """What `{text}` stands for: what was asked, or was read before, or the data's own text.

    Written attributes are read on request only: a data set that was switched to a new title must
    not make it a title of that title.
    """
    most = _most_read(prompt)
    if len(asked.attributes) > most:
        raise InputError(_too_many(prompt, most))
    if asked.attributes or not most:
        return list(asked.attributes)
    before = _read_before(folder, asked)
    if before and all(name in manifest.attributes for name in before):
        return before[:most]
    own = [n for n in manifest.text if n not in manifest.written and n != folder.name]
    if not own:
        message = "the data set's text is all written; what shall the model read?"
        raw = [name for name in manifest.attributes if name not in manifest.written]
        raise InputError(Problem("--attributes", message, f"some of: {', '.join(raw)}"))
    return own[:most]


def _most_read(prompt: PromptConfig) -> int:
    """How many attributes a prompt takes besides those that it names itself."""
    if "text" in prompt.names():
        return sys.maxsize
    return int("history" in prompt.names() and not prompt.history.item)


def _too_many(prompt: PromptConfig, most: int) -> Problem:
    if most:
        message = "the items of {history} are written by one attribute"
        hint = "`history.item` of a prompt of your own takes several: '{title} ({category})'"
    else:
        message = f"the prompt '{prompt.name}' names itself what it reads"
        hint = "--attributes is what {text} stands for"
    return Problem("--attributes", message, hint)


def _check_not_itself(name: str, reads: list[str]) -> None:
    """Texts that are made of themselves would be others each time.

    Raises:
        InputError: the attribute is made of itself.
    """
    if name in reads:
        message = f"'{name}' would be written from itself"
        raise InputError(Problem("--as", message, f"write another name, such as {name}-2"))
