"""Writes the synthetic news corpus `datasets/mind_sample` in MIND's raw format.

    python datasets/make_mind_sample.py            # datasets/mind_sample again, byte for byte
    python datasets/make_mind_sample.py --report   # counts, share of unseen items, reference AUCs
    python datasets/make_mind_sample.py --scale 50 --out /data/mind_big

How a click comes about: every news item has a topic, a tone and named entities, and its headline
says all three in one of many wordings (mind_sample_words.txt). Every reader has a few favourite
categories, subcategories within them, tones that he likes or dislikes in each of these (sports,
but only upbeat), a few names he follows, and one interest that is on his mind just now and changes
every few clicks. He clicks on what fits best, plus noise; weather news is read by everybody and
says little about anybody. News lives about a day, so most of what is to be ranked in the last days
was never seen in training.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from statistics import NormalDist
from typing import TypeVar

import numpy as np

HERE = Path(__file__).resolve().parent
START = datetime(2026, 3, 5)  # train: 3/5 to 3/10, dev: 3/11, so days of one and of two digits
DAY = 24 * 60  # all times are minutes from START
TRAIN_DAYS = 6
SEED = 2026
NORMAL = NormalDist()
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How much is made, and how clearly tastes show. The counts grow with `--scale`."""

    users: int = 700
    train: int = 4600
    dev: int = 1300
    news_per_day: int = 205
    archive: int = 520  # older news, seen in histories only
    life: float = 300.0  # minutes until an item is shown half as often (exponential, base e)
    sharpness: float = 2.2  # of choices: 0 is clicking at random
    on_mind: float = 2.0  # factor on the taste for the category that a reader has on his mind
    else_: float = 0.5  # and on all others
    common: float = 0.9  # how much everybody cares for the weather
    common_share: float = 0.14  # of the news
    stay: float = 0.8  # chance that the next click follows the same interest
    recalled: float = 0.25  # candidates picked for the reader; the others are picked for everybody

    def scaled(self, scale: int) -> Settings:
        counts = ("users", "train", "dev", "news_per_day", "archive")
        return Settings(**{name: getattr(self, name) * scale for name in counts})


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

    def weighted(self, cumulative: Sequence[float]) -> int:
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


# --- the words ------------------------------------------------------------------------------------


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


# --- the news -------------------------------------------------------------------------------------


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


def make_news(settings: Settings, words: Words, seed: int) -> list[News]:
    """All items in the order of their publication; keys are in no order, as MIND's are."""
    draws, room = Draws(seed, 1), None
    room = Newsroom(words, draws)
    times = [-draws.below(10 * DAY) - 1 for _ in range(settings.archive)]
    for day in range(TRAIN_DAYS + 1):
        times += [day * DAY + _minute(draws, -180) for _ in range(settings.news_per_day)]
    times.sort()
    numbers = draws.several(range(1000, 1000 + 4 * len(times)), len(times))
    everything = []
    for published, number in zip(times, numbers, strict=True):
        news = News(
            key=f"N{number}",
            topic=_topic(settings, words, draws),
            tone=draws.below(len(room.tones)),
            published=published,
            exposure=math.exp(0.5 * draws.normal()),
            quality=0.25 * draws.normal(),
        )
        room.write(news)
        everything.append(news)
    return everything


def _topic(settings: Settings, words: Words, draws: Draws) -> int:
    wanted = draws.chance(settings.common_share)
    return draws.one([i for i, t in enumerate(words.topics) if (t.category == "weather") == wanted])


def _minute(draws: Draws, shift: int) -> int:
    """A minute of the day; most are in daytime, `shift` moves the peak from half past two."""
    minute = 870 + shift + 260 * draws.normal()
    return int(minute) % DAY


# --- the readers ----------------------------------------------------------------------------------


@dataclass
class Reader:
    """One user's latent tastes."""

    key: str
    topics: np.ndarray  # [topics]: how much he cares
    tones: np.ndarray  # [categories, tones]: factor on that, by the category's tone
    names: dict[str, float]
    interests: list[int]  # categories that he may have on his mind
    activity: float
    earlier: int  # clicks before the week


def make_readers(settings: Settings, words: Words, seed: int) -> list[Reader]:
    """All readers, each with two to four favourite categories."""
    draws = Draws(seed, 2)
    numbers = draws.several(range(100, 100 + 5 * settings.users), settings.users)
    return [_reader(settings, words, draws, f"U{number}") for number in numbers]


def _reader(settings: Settings, words: Words, draws: Draws, key: str) -> Reader:
    categories = list(words.names)
    common = categories.index("weather")
    rest = [index for index in range(len(categories)) if index != common]
    interests = draws.several(rest, 2 + draws.below(3))
    topics = np.zeros(len(words.topics))
    for index, topic in enumerate(words.topics):
        category = categories.index(topic.category)
        if category in interests:
            topics[index] = 1.6 if draws.chance(0.5) else 0.7
        elif category == common:
            topics[index] = settings.common / settings.else_
        else:
            topics[index] = 0.3 * draws.normal() - 0.2
    tones = np.ones((len(categories), len(words.tones)))
    for category in interests:
        order = draws.shuffled(range(len(words.tones)))
        tones[category, order[:2]] = 1.5
        tones[category, order[3:]] = 0.2
    names = {draws.one(words.places): 0.5}
    for category in interests:
        orgs, persons = words.names[categories[category]]
        names |= {draws.one(orgs): 0.8, draws.one(persons): 0.8}
    activity = math.exp(0.6 * draws.normal())
    earlier = int(4 + 18 * draws.uniform() ** 1.5)
    if draws.chance(0.12):  # new here
        activity, earlier = 0.3 * activity, 0
    return Reader(key, topics, tones, names, interests, activity, earlier)


# --- what they click ------------------------------------------------------------------------------


@dataclass
class Impression:
    """One row of behaviors.tsv, with the scores that its clicks were drawn from."""

    user: str
    time: int
    history: list[str]
    candidates: list[int]  # positions in the list of news
    labels: list[int]
    scores: list[float]


class Press:
    """The news as arrays, and which of it can be seen when."""

    def __init__(self, news: list[News], words: Words, settings: Settings) -> None:
        categories = list(words.names)
        self.news, self.settings = news, settings
        self.topic = np.array([item.topic for item in news])
        self.tone = np.array([item.tone for item in news])
        self.quality = np.array([item.quality for item in news])
        self.exposure = np.array([item.exposure for item in news])
        self.published = np.array([item.published for item in news])
        self.category_of = np.array([categories.index(topic.category) for topic in words.topics])
        self.category = self.category_of[self.topic]
        self._shown: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def shown(self, time: int, category: int) -> tuple[np.ndarray, np.ndarray]:
        """Items on show in that half hour (of one category, or -1 for all), running weights."""
        slot = time // 30
        if (slot, category) not in self._shown:
            first, last = np.searchsorted(self.published, [slot * 30 - DAY, slot * 30 + 1])
            rows = np.arange(first, last)
            if category >= 0:
                rows = rows[self.category[rows] == category]
            age = slot * 30 - self.published[rows]
            weights = self.exposure[rows] * np.exp(-age / self.settings.life)
            self._shown[slot, category] = rows, np.cumsum(weights)
        return self._shown[slot, category]

    def taste(self, reader: Reader, rows: list[int], mind: int) -> np.ndarray:
        """How much a reader would like to read these items now: the score behind his clicks."""
        topic, category, tone = self.topic[rows], self.category[rows], self.tone[rows]
        interest = np.where(category == mind, self.settings.on_mind, self.settings.else_)
        score = reader.topics[topic] * reader.tones[category, tone] * interest
        names = [
            sum(reader.names.get(name, 0.0) for name in self.news[row].names.values())
            for row in rows
        ]
        return score + np.array(names) + self.quality[rows]


def read_week(
    press: Press, reader: Reader, times: list[int], draws: Draws, settings: Settings
) -> Iterator[Impression]:
    """One reader's impressions at these times, after the clicks he made before the week."""
    before = sorted(-1 - draws.below(9 * DAY) for _ in range(reader.earlier))
    history: list[str] = []
    mind = draws.one(reader.interests)
    for time in before + times:
        if not draws.chance(settings.stay):
            mind = draws.one(reader.interests)
        rows = _candidates(press, reader, time, draws, settings)
        scores = press.taste(reader, rows, mind)
        wanted = [settings.sharpness * score + draws.gumbel() for score in scores]
        order = sorted(range(len(rows)), key=lambda place: -wanted[place])
        clicked = order[: 2 if draws.chance(0.12) else 1]
        if time >= 0:
            labels = [int(place in clicked) for place in range(len(rows))]
            yield Impression(reader.key, time, history[-30:], rows, labels, scores.tolist())
        history += [press.news[rows[place]].key for place in clicked]
        if draws.chance(0.03):
            history.append(history[-1])  # opened twice


def _candidates(
    press: Press, reader: Reader, time: int, draws: Draws, settings: Settings
) -> list[int]:
    """6 to 15 different items that are on show, some of them of the reader's categories."""
    wanted = 6 + draws.below(10)
    found: dict[int, None] = {}
    for _ in range(4 * wanted):
        recalled = draws.chance(settings.recalled)
        rows, weights = press.shown(time, draws.one(reader.interests) if recalled else -1)
        if len(rows):
            found[int(rows[draws.weighted(weights)])] = None
        if len(found) == wanted:
            break
    return draws.shuffled(list(found))


@dataclass
class World:
    """The whole corpus in memory, with the truth that its files do not tell."""

    words: Words
    news: list[News]
    train: list[Impression]
    dev: list[Impression]


def make_world(settings: Settings | None = None, seed: int = SEED) -> World:
    """Make everything, in the order of time."""
    settings = settings or Settings()
    words = read_words(HERE / "mind_sample_words.txt")
    news = make_news(settings, words, seed)
    readers = make_readers(settings, words, seed)
    press, draws = Press(news, words, settings), Draws(seed, 3)
    times: list[list[int]] = [[] for _ in readers]
    activity = np.cumsum([reader.activity for reader in readers])
    for _ in range(settings.train):
        times[draws.weighted(activity)].append(draws.below(TRAIN_DAYS) * DAY + _minute(draws, 0))
    for _ in range(settings.dev):
        times[draws.weighted(activity)].append(TRAIN_DAYS * DAY + _minute(draws, 0))
    rows = [
        row
        for reader, visits in zip(readers, times, strict=True)
        for row in read_week(press, reader, sorted(visits), draws, settings)
    ]
    rows.sort(key=lambda row: row.time)
    train = [row for row in rows if row.time < TRAIN_DAYS * DAY]
    return World(words, news, train, rows[len(train) :])


# --- files ----------------------------------------------------------------------------------------


def write_world(world: World, folder: Path, seed: int = SEED) -> None:
    """Write `train` and `dev` as MIND has them, with some of its quirks."""
    draws = Draws(seed, 4)
    by_key = {item.key: item for item in world.news}
    archive = [item.key for item in world.news if item.published < 0]
    fresh = [item.key for item in world.news if item.published >= 0]
    lacking = {*draws.several(archive, 4), *draws.several(fresh, 2)}  # MIND's news lacks some too
    for part, rows in (("train", world.train), ("dev", world.dev)):
        used = {key for row in rows for key in row.history}
        used |= {world.news[place].key for row in rows for place in row.candidates}
        news = [by_key[key] for key in sorted(used - lacking)]
        bare = set(draws.several([item.key for item in news], 2))  # entities empty, not '[]'
        lines = [_news_line(item, world, item.key in bare) for item in news]
        _write(folder / part / "news.tsv", lines)
        rows = draws.shuffled(rows)
        lines = [_behavior_line(number, row, world) for number, row in enumerate(rows, 1)]
        _write(folder / part / "behaviors.tsv", lines)


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    os.replace(new, path)


def _news_line(item: News, world: World, bare: bool) -> str:
    topic = world.words.topics[item.topic]
    title, brief = (
        "" if bare else _entities(text, item, world) for text in (item.title, item.abstract)
    )
    url = f"https://news.example/{item.key}.html"
    fields = [item.key, topic.category, topic.name, item.title, item.abstract, url, title, brief]
    return "\t".join(fields)


TYPES = {"org": "O", "person": "P", "place": "G"}


def _entities(text: str, item: News, world: World) -> str:
    """The names in a text, written as MIND writes them; the Wikidata numbers are of nothing."""
    found = []
    for kind, name in item.names.items():
        if name in text:
            number = 990000000 + zlib.crc32(name.encode()) % 1000000
            found.append(
                {
                    "Label": name,
                    "Type": TYPES[kind],
                    "WikidataId": f"Q{number}",
                    "Confidence": 1.0,
                    "OccurrenceOffsets": [text.index(name)],
                    "SurfaceForms": [name],
                }
            )
    return json.dumps(found)


def _behavior_line(number: int, row: Impression, world: World) -> str:
    time = START + timedelta(minutes=row.time, seconds=(row.time * 37 + number) % 60)
    half = "AM" if time.hour < 12 else "PM"
    clock = f"{time.hour % 12 or 12}:{time:%M:%S} {half}"
    candidates = " ".join(
        f"{world.news[place].key}-{label}"
        for place, label in zip(row.candidates, row.labels, strict=True)
    )
    date = f"{time.month}/{time.day}/{time.year} {clock}"
    return "\t".join([str(number), row.user, date, " ".join(row.history), candidates])


# --- what it holds --------------------------------------------------------------------------------


def mean_auc(rows: list[Impression], score: Callable[[Impression], Sequence[float]]) -> float:
    """Impression-averaged AUC, ties counted half; impressions of one label are left out."""
    values = []
    for row in rows:
        scores, labels = np.asarray(score(row), dtype=float), np.array(row.labels)
        gap = scores[labels == 1][:, None] - scores[labels == 0]
        if gap.size:
            values.append(np.mean((gap > 0) + 0.5 * (gap == 0)))
    return float(np.mean(values))


def report(world: World, valid_share: float = 0.15) -> dict[str, float]:
    """Counts, shares of unseen candidates, and the AUC of some scores on the dev part."""
    cut = len(world.train) - round(valid_share * len(world.train))
    early, late = world.train[:cut], world.train[cut:]
    clicks: dict[int, int] = {}
    for row in world.train:
        for place, label in zip(row.candidates, row.labels, strict=True):
            clicks[place] = clicks.get(place, 0) + label
    everything = world.train + world.dev
    return {
        "news": len(world.news),
        "users": len({row.user for row in everything}),
        "impressions/train": len(world.train),
        "impressions/dev": len(world.dev),
        "candidates per impression": _mean(len(row.candidates) for row in everything),
        "history": _mean(len(row.history) for row in everything),
        "empty histories": _mean(not row.history for row in everything),
        "valid candidates unseen before": _unseen(early, late, world),
        "dev candidates unseen in train": _unseen(world.train, world.dev, world),
        "dev items unseen in train": _unseen(world.train, world.dev, world, distinct=True),
        "auc/oracle": mean_auc(world.dev, lambda row: row.scores),
        "auc/random": mean_auc(world.dev, lambda row: [0.0] * len(row.scores)),
        "auc/popularity": mean_auc(
            world.dev, lambda row: [clicks.get(place, 0) for place in row.candidates]
        ),
    }


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _unseen(
    before: list[Impression], after: list[Impression], world: World, *, distinct: bool = False
) -> float:
    """Share of candidates in `after` that stand in no candidates and no history of `before`."""
    seen = {world.news[place].key for row in before for place in row.candidates}
    seen |= {key for row in before for key in row.history}
    keys = [world.news[place].key for row in after for place in row.candidates]
    return _mean(key not in seen for key in (set(keys) if distinct else keys))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the synthetic news corpus mind_sample.")
    parser.add_argument("--out", type=Path, help="folder to write to; datasets/mind_sample itself")
    parser.add_argument("--scale", type=int, default=1, help="so many times the users and news")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--report", action="store_true", help="measure, and write nothing")
    args = parser.parse_args()
    if args.scale < 1:
        parser.error(f"--scale {args.scale}: 1 or more was expected")
    if args.out is None and not args.report and (args.scale, args.seed) != (1, SEED):
        parser.error("another --scale or --seed is another data set: give its folder with --out")
    world = make_world(Settings().scaled(args.scale), args.seed)
    if args.report:
        for name, value in report(world).items():
            print(f"{name:32s}{value:10.4f}" if isinstance(value, float) else f"{name:32s}{value}")
        return
    folder = args.out or HERE / "mind_sample"
    write_world(world, folder, args.seed)
    print(f"wrote {len(world.train) + len(world.dev)} impressions to {folder}")


if __name__ == "__main__":
    main()
