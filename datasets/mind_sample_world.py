"""The world behind `mind_sample`: its news, its readers' tastes, and what they click."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mind_sample_text import DAY, Draws, News, Newsroom, Words, read_words

TRAIN_DAYS = 6  # the seventh is dev
SEED = 2026
WORDS = Path(__file__).resolve().parent / "mind_sample_words.txt"


@dataclass(frozen=True)
class Settings:
    """How much is made, and how clearly tastes show. The counts grow with `--scale`."""

    users: int = 700
    train: int = 4600
    dev: int = 1300
    news_per_day: int = 205
    archive: int = 520  # older news, seen in histories only
    life: float = 300.0  # minutes in which an item is shown 1/e as often
    recalled: float = 0.5  # candidates of the reader's categories; the others are for everybody
    weather: float = 0.14  # share of the weather among the news
    sharpness: float = 2.4  # of choices: 0 is clicking at random
    beloved: float = 3.0  # taste for a favourite subcategory, and
    common: float = 1.3  # everybody's for the weather; for most other things it is about 0
    gladly: float = 1.4  # factors on that, by tone, for tones that he likes in this category,
    hardly: float = 0.4  # and for tones that he dislikes
    moody: float = 0.3  # chance that he likes other tones in one category than in the rest
    mood: float = 1.1  # taste for the tones he likes, whatever the topic
    shock: float = 2.0  # everybody's for alarming news,
    blunt: float = 0.1  # where all other tastes count so little
    on_mind: float = 1.6  # factor for the category that he has on his mind now
    aside: float = 0.7  # and for the others
    stay: float = 0.8  # chance that the next click follows the same interest

    def scaled(self, scale: int) -> Settings:
        counts = ("users", "train", "dev", "news_per_day", "archive")
        return Settings(**{name: getattr(self, name) * scale for name in counts})


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
    weather = draws.chance(settings.weather)
    chosen = [i for i, t in enumerate(words.topics) if (t.category == "weather") == weather]
    return draws.one(chosen)


def _minute(draws: Draws, shift: int) -> int:
    """A minute of the day; most are in daytime, `shift` moves the peak from half past two."""
    minute = 870 + shift + 260 * draws.normal()
    return int(minute) % DAY


@dataclass
class Reader:
    """One user's latent tastes."""

    key: str
    topics: np.ndarray  # [topics]: how much he cares
    tones: np.ndarray  # [categories, tones]: factor on that
    mood: np.ndarray  # [tones]: 1 likes, -1 dislikes, whatever the topic
    names: dict[str, float]  # the names that he follows
    interests: list[int]  # categories that he may have on his mind
    activity: float
    earlier: int  # visits before the week


def make_readers(settings: Settings, words: Words, seed: int) -> list[Reader]:
    """All readers, each with two to four favourite categories."""
    draws = Draws(seed, 2)
    numbers = draws.several(range(100, 100 + 5 * settings.users), settings.users)
    return [_reader(settings, words, draws, f"U{number}") for number in numbers]


def _reader(settings: Settings, words: Words, draws: Draws, key: str) -> Reader:
    categories = list(words.names)
    rest = [index for index, name in enumerate(categories) if name != "weather"]
    interests = draws.several(rest, 2 + draws.below(3))
    topics = _topics(settings, words, interests, draws)
    order = draws.shuffled(range(len(words.tones)))
    mood = np.zeros(len(order))
    mood[order[:2]], mood[order[4:]] = 1, -1
    tones = np.ones((len(categories), len(order)))
    names = {draws.one(words.places): 0.5}
    for category in interests:
        own = draws.shuffled(order) if draws.chance(settings.moody) else order
        tones[category, own[:2]], tones[category, own[3:]] = settings.gladly, settings.hardly
        orgs, persons = words.names[categories[category]]
        names |= {draws.one(orgs): 0.7, draws.one(persons): 0.7}
    activity = math.exp(0.6 * draws.normal())
    earlier = int(4 + 18 * draws.uniform() ** 1.5)
    if draws.chance(0.12):  # new here
        activity, earlier = 0.3 * activity, 0
    return Reader(key, topics, tones, mood, names, interests, activity, earlier)


def _topics(settings: Settings, words: Words, interests: list[int], draws: Draws) -> np.ndarray:
    """How much a reader cares for each topic: one or two of each favourite category's, mainly."""
    categories = list(words.names)
    taste = np.array([0.3 * draws.normal() - 0.2 for _ in words.topics])
    of = [categories.index(topic.category) for topic in words.topics]
    taste[np.isin(of, interests)] = 0.0
    taste[[name == "weather" for name in map(categories.__getitem__, of)]] = settings.common
    for category in interests:
        own = [index for index, owner in enumerate(of) if owner == category]
        taste[draws.several(own, 1 + draws.below(2))] = settings.beloved
    return taste


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
        self.alarming = list(words.tones).index("alarming")
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
        settings = self.settings
        topic, category, tone = self.topic[rows], self.category[rows], self.tone[rows]
        interest = np.where(category == mind, settings.on_mind, settings.aside)
        score = reader.topics[topic] * reader.tones[category, tone] * interest
        score += settings.mood * reader.mood[tone]
        score = np.where(tone == self.alarming, settings.shock + settings.blunt * score, score)
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
        rows = _candidates(press, reader, time, set(history), draws)
        scores = press.taste(reader, rows, mind)
        wanted = [settings.sharpness * score + draws.gumbel() for score in scores]
        order = sorted(range(len(rows)), key=lambda place: -wanted[place])
        clicked = order[: 2 if draws.chance(0.25) else 1]
        if time >= 0:
            labels = [int(place in clicked) for place in range(len(rows))]
            yield Impression(reader.key, time, history[-30:], rows, labels, scores.tolist())
        history += [press.news[rows[place]].key for place in clicked]
        if draws.chance(0.03):
            history.append(history[-1])  # opened twice


def _candidates(press: Press, reader: Reader, time: int, read: set[str], draws: Draws) -> list[int]:
    """6 to 15 items on show, some of the reader's categories; few that he has read before."""
    wanted = 6 + draws.below(10)
    found: dict[int, None] = {}
    for _ in range(4 * wanted):
        recalled = draws.chance(press.settings.recalled)
        rows, weights = press.shown(time, draws.one(reader.interests) if recalled else -1)
        row = int(rows[draws.weighted(weights)]) if len(rows) else -1
        if row >= 0 and (press.news[row].key not in read or draws.chance(0.1)):
            found[row] = None
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
    words = read_words(WORDS)
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
