"""`legoray augment`: write an attribute of all items or users, going on where it was left.

Answers are kept part by part as they come. Started again with the same prompt, model and settings,
exactly those rows are asked about whose source (the digest of the filled-in prompt and all
settings) is not kept yet.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing

from rich.console import Console

from legoray.config import build, home
from legoray.data.built import locked
from legoray.data.prepare import prepare
from legoray.data.schema import Manifest
from legoray.data.written import WrittenMeta, write_part, written_folder
from legoray.errors import InputError
from legoray.llm.generation import kept, pool
from legoray.llm.generation.cleaning import Cleaned, clean
from legoray.llm.generation.endpoint import Endpoint, EndpointConfig, key_from_environment
from legoray.llm.generation.job import (
    DEFAULT_MODEL,
    Asked,
    Job,
    check_name,
    job_of,
    precision_of,
    writer_of,
)
from legoray.llm.generation.local import Answer, Settings
from legoray.llm.generation.progress import Progress, told
from legoray.llm.generation.prompt import read_prompt
from legoray.storage.folders import share

Say = Callable[[str], None]
Numbered = tuple[int, Answer]
SECONDS_UNKEPT = 10.0  # an answer waits no longer for others of its part
_EXAMPLES, _SHOWN = 3, 100
_SHORTER = "name fewer attributes, a shorter history, or a model that reads more"


def augment(asked: Asked, console: Console) -> None:
    """Write an attribute.

    Args:
        asked: what, by whom, of which data set.
        console: told what goes on.

    Raises:
        InputError: a mistake in the request, the prompt or the data; the model or the server
            fails. What is finished is kept.
    """
    say: Say = lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)  # noqa: E731
    prompt = read_prompt(asked.prompt)
    by = writer_of(asked)
    name = build(WrittenMeta, {"attribute": asked.name or prompt.attribute}).attribute
    prepared = prepare(asked.dataset, say=say, coming=name)
    check_name(name, prepared.manifest)
    folder = written_folder(home(), prepared.manifest.name, name)
    with locked(folder, f"another process writes '{name}'; waiting for it", say):
        job = job_of(asked, prompt, by, folder, prepared.tables, prepared.manifest)
        try:
            _write(job, console, say)
        except KeyboardInterrupt:
            say("interrupted: what is finished is kept; the same command goes on")
            raise
    _advise(job, prepared.manifest, say)


def _known(job: Job, say: Say) -> kept.Known:
    """What is kept of these rows; `--overwrite` sets the rest aside."""
    keys = job.questions.keys
    look = lambda: kept.look(job.folder, job.recipe, keys, job.sources)  # noqa: E731
    away = None
    try:
        known = look()
    except InputError:
        if not job.asked.overwrite:
            raise
        away = kept.set_aside(job.folder)
        known = look()
    if any(known.changed):
        if not job.asked.overwrite:
            kept.refuse_changed(job.folder, keys, known.changed, job.prompt.of)
        pairs = zip(job.sources, known.fresh, strict=True)
        away = kept.set_aside(job.folder, [source for source, fresh in pairs if fresh])
        known = look()
    if away:
        share(away)
        say(f"what was written before is set aside: {away}")
    return known


def _write(job: Job, console: Console, say: Say) -> None:
    """Ask about every row that is not known, and keep what comes."""
    known = _known(job, say)
    rows = range(min(job.asked.limit or len(job.questions), len(job.questions)))
    todo = [row for row in rows if not known.fresh[row]]
    name = job.folder.name
    by = f"{job.provenance.model}, prompt {job.prompt.name}"
    if job.recipe["attributes"]:
        by += f" of {', '.join(job.recipe['attributes'])}"
    say(f"{name}: {len(rows) - len(todo):,} known, {len(todo):,} to write ({by})")
    progress = Progress(name, len(todo), console)
    keeper = _Keeper(job, progress, kept.recount(job.folder, known.cut))
    keeper.keep([(row, Answer("")) for row in todo if job.questions.blank[row]])
    asking = [row for row in todo if not job.questions.blank[row]]
    if asking:
        _stream(job, asking, keeper, progress)
    kept.compact(job.folder)
    share(job.folder)
    parts = [f"{progress.counts['written']:,} written"]
    parts += told(progress.counts)
    if todo:
        speed = f"in {progress.seconds:,.1f} s ({progress.rate:.2f}/s)"
        say(f"{name}: {', '.join(parts)} {speed}")
    for line in keeper.examples:
        say(line)
    for line in keeper.too_long:
        say(line)
    if keeper.too_long:
        say(f"  what is too long counts as missing: {_SHORTER}")


def _stream(job: Job, asking: list[int], keeper: _Keeper, progress: Progress) -> None:
    """Keep answers in parts of a batch; what has come is kept whatever happens next."""
    waiting: list[Numbered] = []
    since = time.monotonic()
    try:
        with progress.live(), closing(_answers(job, asking)) as answers:
            for chunk in answers:
                waiting += [(asking[place], answer) for place, answer in chunk]
                if len(waiting) >= job.asked.batch or time.monotonic() - since > SECONDS_UNKEPT:
                    keeper.keep(waiting)
                    waiting, since = [], time.monotonic()
    finally:
        keeper.keep(waiting)


def _answers(job: Job, asking: list[int]) -> Generator[list[Numbered], None, None]:
    asked = job.asked
    questions = [job.questions[row] for row in asking]
    settings = Settings(job.prompt.max_new_tokens, asked.temperature, asked.seed)
    if asked.endpoint is None:
        precision = precision_of(asked.precision)
        config = pool.LocalConfig(asked.model or DEFAULT_MODEL, precision, settings, asked.batch)
        yield from pool.answers(config, questions)
        return
    server = EndpointConfig(
        url=asked.endpoint,
        model=str(asked.endpoint_model),
        settings=settings,
        concurrency=asked.concurrency,
        timeout=asked.timeout,
        key=key_from_environment(),
    )
    with closing(Endpoint(server).answers(questions)) as answers:
        for numbered in answers:
            yield [numbered]


class _Keeper:
    """Cleans answers and writes them down."""

    def __init__(self, job: Job, progress: Progress, before: Counter[str]) -> None:
        self._job, self._progress, self._before = job, progress, before
        self.examples: list[str] = []
        self.too_long: list[str] = []

    def keep(self, answers: list[Numbered]) -> None:
        """Write answers as one part."""
        if not answers:
            return
        job = self._job
        cleaned = [self._cleaned(row, answer) for row, answer in answers]
        rows = [row for row, _ in answers]
        keys, sources = (
            [given[row] for row in rows] for given in (job.questions.keys, job.sources)
        )
        texts, statuses = [one.text for one in cleaned], [one.status for one in cleaned]
        if not self._progress.done:
            job.note(self._before)  # a part must never lie there without what made it
        write_part(job.folder, kept.part(keys, sources, texts, list(statuses)))
        counts: Counter[str] = Counter(statuses)
        counts["cut"] = sum(answer.cut for _, answer in answers)
        self._progress.add(counts, len(rows))
        job.note(self._before + self._progress.counts)
        share(job.folder)

    def _cleaned(self, row: int, answer: Answer) -> Cleaned:
        job = self._job
        if answer.refused:
            return Cleaned("", "refused")
        if answer.too_long:
            if len(self.too_long) < _EXAMPLES:
                self.too_long.append(f"  {job.questions.keys[row]}  not asked: {answer.too_long}")
            return Cleaned("", "too_long")
        found = clean(answer.text, job.prompt, cut=answer.cut)
        if found.status == "written" and len(self.examples) < _EXAMPLES:
            read, key = _short(job.questions.shown[row]), job.questions.keys[row]
            self.examples.append(f"  {key}  {read}\n      -> {_short(found.text)}")
        return found


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3].rstrip() + "..."


def _advise(job: Job, manifest: Manifest, say: Say) -> None:
    """What is there now, and how it is read."""
    name, dataset, total = job.folder.name, job.asked.dataset, len(job.questions)
    texts = kept.recount(job.folder, 0)["written"]
    say(f"{texts:,} of {total:,} {job.prompt.of} have a text: {job.folder}")
    if texts < total:
        partly = f"attributes: [{{name: {name}, missing: empty}}]"
        say(f"to read it although some have none, add to {dataset}: {partly}")
    if job.prompt.of == "users":
        say(f"a part reads it as the field user.{name}")
        return
    say(f"to read it: `text: [{name}]` in {dataset} (now [{', '.join(manifest.text)}]); then")
    say(f"  legoray train --preset nrms --data {dataset}")
