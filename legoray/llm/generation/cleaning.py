"""A model's answer -> the text that is kept, and what became of it. Plain functions of strings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from legoray.llm.generation.prompt import AnswerConfig, PromptConfig

Status = Literal["written", "refused", "empty", "too_long"]

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_INTRODUCTION = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|here(?:'s| is| are))\b[^\n:.]{0,80}:\s*", re.IGNORECASE
)
_BULLET = re.compile(r"^(?:[-*•]|\d{1,2}[.)])\s+")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)]*(?=\s|$)")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}


@dataclass(frozen=True)
class Cleaned:
    """What is kept of an answer: its text is empty unless it counts as written."""

    text: str
    status: Status


def clean(answer: str, prompt: PromptConfig, *, cut: bool = False) -> Cleaned:
    """What is kept of an answer.

    Args:
        answer: as the model wrote it.
        prompt: tells the form of an answer and what a refusal looks like.
        cut: whether the answer ended at the token limit, so that its end is not whole.
    """
    plain = _THOUGHT.sub("", answer).strip()
    bare = _without_label(_INTRODUCTION.sub("", plain), prompt.answer.labels)
    for text in (plain, bare):
        told = text.replace("’", "'")
        if any(re.search(pattern, told, re.IGNORECASE) for pattern in prompt.refusals):
            return Cleaned("", "refused")
    text = _FORMS[prompt.answer.form](bare, prompt.answer, cut)
    # a lone surrogate or another control character could not be stored or shown
    text = "".join(c for c in text if c.isprintable()).strip()
    return Cleaned(text, "written") if _says_something(text) else Cleaned("", "empty")


def _says_something(text: str) -> bool:
    """Not without letters, and not the same few words over and over, as small models do."""
    words = re.findall(r"\w+", text.casefold())
    stuck = len(words) >= 6 and 3 * len(set(words)) < len(words)
    return bool(re.search(r"[^\W\d_]", text)) and not stuck


def _without_label(text: str, labels: list[str]) -> str:
    text = text.strip().lstrip("#").strip()
    if not labels:
        return text
    names = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    return re.sub(rf"^\W*(?:{names})\W*[:：]\W*?(?=\S)", "", text, count=1, flags=re.IGNORECASE)


def _one_line(text: str) -> str:
    """In one line, without marks of emphasis and without quotes around the whole."""
    text = " ".join(text.replace("**", "").replace("__", "").split())
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def _text(answer: str, config: AnswerConfig, cut: bool) -> str:
    text = _one_line(answer)
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if cut and ends else text


def _line(answer: str, config: AnswerConfig, cut: bool) -> str:
    lines = [_one_line(line) for line in answer.splitlines()]
    return next((line for line in lines if line), "")


def _list(answer: str, config: AnswerConfig, cut: bool) -> str:
    pieces = re.split(r"[,;\n]", answer)
    if cut and len(pieces) > 1:
        pieces = pieces[:-1]  # the last one is not whole
    entries: dict[str, str] = {}
    for piece in pieces:
        entry = _one_line(_BULLET.sub("", piece.strip())).strip(" .")
        if entry:
            entries.setdefault(entry.casefold(), entry)
    return ", ".join(list(entries.values())[: config.most])


def _choice(answer: str, config: AnswerConfig, cut: bool) -> str:
    known = {choice.casefold(): choice for choice in config.choices}
    first = _line(answer, config, cut).strip(" .!:").casefold()
    if first in known:
        return known[first]
    named = [
        choice
        for folded, choice in known.items()
        if re.search(rf"(?<!\w){re.escape(folded)}(?!\w)", answer.casefold())
    ]
    return named[0] if len(named) == 1 else ""


_FORMS: dict[str, Callable[[str, AnswerConfig, bool], str]] = {
    "text": _text,
    "line": _line,
    "list": _list,
    "choice": _choice,
}
