"""The words of `mind_sample`: random draws, the lexicon, and headlines made of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import TypeVar

import numpy as np

DAY = 24 * 60  # all times are minutes from the start of the week
NORMAL = NormalDist()
T = TypeVar("T")


class Draws:
    """Random draws from uniform numbers alone, whose stream numpy keeps stable over versions."""

    def __init__(self, seed: int, stream: int) -> None:
        self._source = np.random.Generator(np.random.PCG64([seed, stream]))
        self._block: Iterator[float] = iter(())

    def uniform(self) -> float:
        for value in self._block:
            return value
        self._block = iter(self._source.random(4096).tolist())
        return next(self._block)

    def below(self, stop: int) -> int:
        return int(self.uniform() * stop)

    def chance(self, share: float) -> bool:
        return self.uniform() < share

    def one(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def normal(self) -> float:
        return NORMAL.inv_cdf(min(max(self.uniform(), 1e-12), 1 - 1e-12))

    def gumbel(self) -> float:
        return -math.log(-math.log(min(max(self.uniform(), 1e-12), 1 - 1e-12)))

    def weighted(self, cumulative: np.ndarray) -> int:
        """An index, drawn by its weight; `cumulative` holds the running sums of the weights."""
        return int(np.searchsorted(cumulative, self.uniform() * cumulative[-1], side="right"))

    def several(self, options: Sequence[T], count: int) -> list[T]:
        return self.shuffled(options)[:count]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        rows = list(options)
        for last in range(len(rows) - 1, 0, -1):
            other = self.below(last + 1)
            rows[last], rows[other] = rows[other], rows[last]
        return rows


@dataclass(frozen=True)
class Topic:
    """A subcategory and its words."""

    category: str
    name: str
    things: list[tuple[str, str]]  # singular, plural
    actors: list[tuple[str, str]]


@dataclass
class Words:
    """Everything that headlines are made of."""

    topics: list[Topic] = field(default_factory=list)
    names: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)
    tones: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)


IRREGULAR = {"loaf": "loaves", "tooth": "teeth", "scarf": "scarves", "child": "children"}


def plural(noun: str) -> str:
    """The plural of a countable English noun, or of a phrase that ends in one."""
    head, _, last = noun.rpartition(" ")
    if last in IRREGULAR:
        return f"{head} {IRREGULAR[last]}".strip()
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search(r"(s|x|ch|sh)$", noun) else "s")


def singular(noun: str) -> str:
    """The singular of a regular plural."""
    if noun.endswith("ies"):
        return noun[:-3] + "y"
    return noun[:-2] if re.search(r"(ss|ch|sh|x)es$", noun) else noun[:-1]


def read_words(path: Path) -> Words:
    """Parse mind_sample_words.txt (the file says how it is laid out)."""
    words, section, category = Words(), "", ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line.strip("[]")
        elif line.startswith("@"):
            category, orgs, persons = (part.strip() for part in line[1:].split("|"))
            words.names[category] = (_list(orgs), _list(persons))
        elif section == "topics":
            name, _, rest = line.partition(":")
            things, actors = (_list(part) for part in rest.split("|"))
            words.topics.append(
                Topic(
                    category,
                    name,
                    [(thing, plural(thing)) for thing in things],
                    [(singular(actor), actor) for actor in actors],
                )
            )
        elif section.startswith("tone "):
            key, _, value = line.partition(": ")
            rows = [value] if key in ("title", "brief") else _list(value)
            words.tones.setdefault(section[5:], {}).setdefault(key, []).extend(rows)
        else:
            getattr(words, section).extend(_list(line))
    return words


def _list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


@dataclass
class News:
    """One item: what it says, and what it means."""

    key: str
    topic: int
    tone: int
    published: int
    exposure: float  # how often editors show it
    quality: float  # how much everybody likes it
    title: str = ""
    abstract: str = ""
    names: dict[str, str] = field(default_factory=dict)  # org, person, place: those it mentions


class Newsroom:
    """Writes headlines: a template of the tone, filled with words of the topic and with names."""

    def __init__(self, words: Words, draws: Draws) -> None:
        self.words, self.draws = words, draws
        self.tones = list(words.tones)
        self._hot: dict[tuple[int, int], list[int]] = {}

    def write(self, news: News) -> None:
        """Fill in an item's title, abstract and names."""
        topic = self.words.topics[news.topic]
        orgs, persons = self.words.names[topic.category]
        names = {
            "org": orgs[self._early(len(orgs))],
            "person": persons[self._early(len(persons))],
            "place": self.draws.one(self.words.places),
        }
        tone = self.words.tones[self.tones[news.tone]]
        title, brief = self.draws.one(tone["title"]), self.draws.one(tone["brief"])
        fill = self._filler(news, topic, names)
        news.title = _sentence(fill(title))
        news.abstract = "" if self.draws.chance(0.05) else _sentence(fill(brief))
        news.names = {kind: name for kind, name in names.items() if name in news.title}

    def _early(self, count: int) -> int:
        """An index; the first ones are drawn more often, as some names are in the news more."""
        return int(count * self.draws.uniform() ** 1.5)

    def _filler(self, news: News, topic: Topic, names: dict[str, str]) -> Callable[[str], str]:
        slots = self.words.tones[self.tones[news.tone]]
        day = news.published // DAY

        def word(match: re.Match[str]) -> str:
            slot = match[1]
            if slot in names:
                return names[slot]
            if slot in ("thing", "things"):
                return topic.things[self._thing(news.topic, day)][slot == "things"]
            if slot in ("actor", "actors"):
                return self.draws.one(topic.actors)[slot == "actors"]
            return self.draws.one(self.words.numbers if slot == "number" else slots[slot])

        return lambda template: re.sub(r"\{(\w+)\}", word, template)

    def _thing(self, topic: int, day: int) -> int:
        """Each day has its own few subjects: words come and go as news does."""
        count = len(self.words.topics[topic].things)
        if (topic, day) not in self._hot:
            self._hot[topic, day] = self.draws.several(range(count), 5)
        return (
            self.draws.one(self._hot[topic, day])
            if self.draws.chance(0.75)
            else (self.draws.below(count))
        )


def _sentence(text: str) -> str:
    """With `a` and `an` put right and a capital letter at the start."""

    def article(match: re.Match[str]) -> str:
        vowel = re.match(r"(?!uni|use|usu|eu|one)[aeiou8]|hour|heir|11|18", match[2].lower())
        return f"{match[1]}n {match[2]}" if vowel else match[0]

    text = re.sub(r"\b([Aa]) ([\w-]+)", article, text)
    return re.sub(r"[^\W_]", lambda match: match[0].upper(), text, count=1)
