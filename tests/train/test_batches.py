"""Batches against plain loops: what is in them, and that nothing is lost or counted twice."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from train_corpora import make_corpus

from legoray.model.inputs import Inputs
from legoray.train.batches import (
    Collator,
    Numbering,
    ahead,
    balanced,
    draw_distinct,
    draw_samples,
    share,
)


class Ids:
    def gather(self, items):
        return items


@pytest.fixture(scope="module")
def corpus():
    return make_corpus()


def drawn(corpus, task="matching", negatives=4, seed=1, epoch=1):
    return draw_samples(
        corpus.splits["train"], task=task, negatives=negatives, seed=seed, epoch=epoch
    )


def members(split, impression):
    """Rows of an impression's clicks and of its non-clicks."""
    rows = range(split.offsets[impression], split.offsets[impression + 1])
    return (
        {row for row in rows if split.label[row]},
        {row for row in rows if not split.label[row]},
    )


def test_every_click_stands_once_before_non_clicks_of_its_impression(corpus):
    split, samples = corpus.splits["train"], drawn(corpus)
    seen = Counter()
    for impression, (click, *others) in zip(samples.impression, samples.rows, strict=True):
        clicks, non_clicks = members(split, impression)
        assert click in clicks
        assert set(others) <= non_clicks
        if len(non_clicks) >= 4:
            assert len(set(others)) == 4
        seen[click] += 1
    usable = [members(split, i) for i in range(len(split))]
    assert seen == Counter(row for clicks, others in usable if others for row in clicks)
    assert samples.dropped == sum(len(clicks) for clicks, others in usable if not others) > 0


def test_ranking_has_the_same_pairs_one_by_one(corpus):
    pairs = drawn(corpus, task="ranking")
    matching = drawn(corpus)
    assert pairs.rows.shape == (len(matching) * 5, 1)
    assert Counter(pairs.rows.ravel().tolist()) == Counter(matching.rows.ravel().tolist())
    split = corpus.splits["train"]
    inside = (split.offsets[pairs.impression] <= pairs.rows[:, 0]) & (
        pairs.rows[:, 0] < split.offsets[pairs.impression + 1]
    )
    assert inside.all()


def test_an_epoch_depends_on_seed_and_number_alone(corpus):
    assert (drawn(corpus).rows == drawn(corpus).rows).all()
    assert not (drawn(corpus).rows == drawn(corpus, epoch=2).rows).all()
    assert not (drawn(corpus).rows == drawn(corpus, seed=2).rows).all()
    assert len(drawn(corpus, seed=-3)) == len(drawn(corpus))


def test_every_subset_is_drawn_equally_often():
    rng = np.random.default_rng(0)
    found = Counter(map(tuple, np.sort(draw_distinct(rng, np.full(60_000, 5), 3)).tolist()))
    assert set(found) == set(itertools.combinations(range(5), 3))
    assert all(count == pytest.approx(6_000, rel=0.06) for count in found.values())


def test_too_few_non_clicks_are_drawn_with_replacement():
    numbers = draw_distinct(np.random.default_rng(0), np.full(3_000, 2), 4)
    assert set(np.unique(numbers)) == {0, 1}
    assert np.bincount(numbers.ravel()) == pytest.approx([6_000, 6_000], rel=0.06)


@pytest.mark.parametrize("max_history", [3, 50])
def test_collated_rows_hold_the_right_items(corpus, max_history):
    split, samples = corpus.splits["train"], drawn(corpus)
    batch = Collator(corpus, split, Inputs(Ids()), max_history)(
        samples.impression[:32], samples.rows[:32]
    )
    table = torch.cat([torch.zeros(1, dtype=torch.long), batch.items])
    assert len(set(batch.items.tolist())) == len(batch.items)
    used = set(batch.history.unique().tolist()) | set(batch.candidates.unique().tolist())
    assert used - {0} == set(range(1, len(table)))
    for row in range(32):
        impression = samples.impression[row]
        start = corpus.history_offsets[split.history[impression]]
        before = corpus.history_items[start : start + split.history_end[impression]]
        history = table[batch.history[row]]
        assert history[history > 0].tolist() == before[-max_history:].tolist()
        assert table[batch.candidates[row]].tolist() == split.item[samples.rows[row]].tolist()
        assert batch.labels[row].tolist() == [1, 0, 0, 0, 0]


def test_numbering_forgets_the_batch_before():
    number = Numbering(10)
    number(np.array([[1, 2], [3, 0]]), np.array([9]))
    items, (first, second) = number(np.array([[7, 0], [2, 7]]), np.array([2, 5]))
    assert items.tolist() == [2, 5, 7]
    assert first.tolist() == [[3, 0], [1, 3]]
    assert second.tolist() == [1, 2]
    assert number(np.array([[0, 0]]))[0].tolist() == []


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [0, 1, 2, 5, 64])
def test_shares_make_up_the_whole(size, world):
    shares = [share(10, 10 + size, rank, world) for rank in range(world)]
    assert [n for a, b in shares for n in range(a, b)] == list(range(10, 10 + size))
    sizes = [b - a for a, b in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_parts_make_up_the_share(corpus, count):
    samples = drawn(corpus)
    collate = Collator(corpus, corpus.splits["train"], Inputs(Ids()), 5)
    parts = collate.parts(samples, 3, 10, count)
    assert len(parts) == min(count, 7)
    assert sum(part.count for part in parts) == 7
    clicks = [part.batch.items[part.batch.candidates[:, 0] - 1].tolist() for part in parts]
    wanted = corpus.splits["train"].item[samples.rows[3:10, 0]].tolist()
    assert [item for part in clicks for item in part] == wanted


def test_an_empty_share_gives_one_row_that_does_not_count(corpus):
    collate = Collator(corpus, corpus.splits["train"], Inputs(Ids()), 5)
    (part,) = collate.parts(drawn(corpus), 4, 4, 2)
    assert (part.count, len(part.batch.candidates)) == (0, 1)


def test_ahead_keeps_the_order_and_passes_errors_on():
    assert list(ahead(iter(range(50)), 3)) == list(range(50))

    def broken():
        yield 1
        raise OSError("no disk")

    values = ahead(broken())
    assert next(values) == 1
    with pytest.raises(OSError, match="no disk"):
        next(values)


def test_ahead_stops_its_thread_when_it_is_left():
    made = []

    def endless():
        for number in itertools.count():
            made.append(number)
            yield number

    values = ahead(endless(), 2)
    assert [next(values), next(values)] == [0, 1]
    values.close()
    assert len(made) <= 5


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_of_a_batch_are_like_work(corpus, world):
    samples = drawn(corpus)
    lengths = np.random.default_rng(0).integers(0, 50, len(samples))
    size, total = 12, len(samples)
    found = balanced(samples, lengths, size=size, world=world)
    place = {tuple(row): n for row, n in zip(samples.rows, lengths, strict=True)}
    for start in range(0, total, size):
        stop = min(start + size, total)
        whole, own = (sorted(map(tuple, one.rows[start:stop])) for one in (samples, found))
        assert own == whole
        work = [
            sum(place[tuple(row)] for row in found.rows[slice(*share(start, stop, rank, world))])
            for rank in range(world)
        ]
        if stop - start == size:
            assert max(work) - min(work) <= 50
