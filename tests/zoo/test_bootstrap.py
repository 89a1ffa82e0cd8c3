"""The paired bootstrap against scipy's, and Holm's rule and letters against their definitions."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from legoray.zoo import bootstrap
from legoray.zoo.bootstrap import holm, resample, tie_letters


def difference(a, b, axis=-1):
    return a.mean(axis) - b.mean(axis)


def pair(groups, seed, shift=0.03):
    random = np.random.default_rng(seed)
    base = random.beta(2, 2, groups)
    noise = random.normal(0, 0.1, (2, groups))
    return base + noise[0] + shift, base + noise[1]


@pytest.mark.parametrize("method", ["BCa", "percentile"])
def test_one_seed_and_a_group_per_user_is_the_paired_bootstrap_of_scipy(method):
    a, b = pair(300, 1)
    expected = stats.bootstrap(
        (a, b), difference, paired=True, n_resamples=9999, method=method, random_state=2
    )
    found = resample([a[None], b[None]], np.arange(300), seed=3).gap(0, 1)
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert found.difference == pytest.approx(difference(a, b), abs=1e-12)
    assert found.error == pytest.approx(expected.standard_error, rel=0.04)
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.05 * width)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.05 * width)
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=0.35)


def test_groups_of_a_user_are_drawn_together():
    """Scipy's bootstrap of the users, whose sums and sizes are put together by its statistic."""
    random = np.random.default_rng(4)
    user = np.sort(random.integers(0, 60, 400))
    a, b = pair(400, 5)
    a += random.normal(0, 0.2, 60)[user]
    sums = np.bincount(user, a - b, minlength=60)
    sizes = np.bincount(user, minlength=60)
    kept = sizes > 0

    def ratio(s, n, axis=-1):
        return s.sum(axis) / n.sum(axis)

    expected = stats.bootstrap(
        (sums[kept], sizes[kept]), ratio, paired=True, n_resamples=9999, random_state=6
    )
    apart = resample([a[None], b[None]], np.arange(400), seed=7).gap(0, 1)
    found = resample([a[None], b[None]], user * 3 + 1, seed=7).gap(0, 1)
    assert found.error == pytest.approx(expected.standard_error, rel=0.04)
    assert found.error > 1.5 * apart.error


def test_seeds_vary_as_much_as_they_do():
    """Where groups do not matter the error is that of Welch's test, whatever the seeds' number.

    The degrees of freedom are fewer than Welch's, so p is larger and the interval wider.
    """
    for size in (2, 3, 5):
        seeds = np.random.default_rng(size).normal(0, 0.02, (2, size))
        a, b = (np.repeat(row[:, None], 40, axis=1) for row in seeds)
        found = resample([a, b], np.arange(40), seed=1, resamples=20_000).gap(0, 1)
        welch = stats.ttest_ind(seeds[0], seeds[1], equal_var=False)
        assert found.error == pytest.approx(found.difference / welch.statistic, rel=0.02)
        assert found.freedom == pytest.approx(size - 1, rel=0.05)
        assert found.p == pytest.approx(
            2 * stats.t.sf(abs(found.difference) / found.error, size - 1), rel=0.05
        )
        assert found.p >= welch.pvalue


def test_seeds_that_differ_by_their_groups_alone_add_no_variance():
    """Then the mean over seeds has the error that its values of groups have."""
    random = np.random.default_rng(3)
    base = random.normal(0, 0.1, 2000)
    ratios = []
    for _ in range(20):
        a, b = (base + random.normal(0, 0.1, (3, 2000)) for _ in range(2))
        found = resample([a, b], np.arange(2000), seed=1, resamples=400).gap(0, 1)
        plain = np.std(a.mean(0) - b.mean(0), ddof=1) / np.sqrt(2000)
        ratios.append((found.error / plain) ** 2)
    assert 0.95 < np.median(ratios) < 1.5


def test_many_users_in_bundles_have_the_error_of_single_ones(monkeypatch):
    a, b = pair(20_000, 8)
    user = np.arange(20_000) // 2
    whole = resample([a[None], b[None]], user, seed=1, resamples=1000).gap(0, 1)
    monkeypatch.setattr(bootstrap, "MOST_DRAWN", 1000)
    bundled = resample([a[None], b[None]], user, seed=1, resamples=1000).gap(0, 1)
    assert bundled.difference == whole.difference
    assert bundled.error == pytest.approx(whole.error, rel=0.12)


def test_small_blocks_and_other_models_change_nothing(monkeypatch):
    a, b = pair(50, 9)
    whole = resample([a[None], b[None]], np.arange(50), seed=1, resamples=100)
    monkeypatch.setattr(bootstrap, "BLOCK", 333)
    small = resample([a[None], b[None], a[None]], np.arange(50), seed=1, resamples=100)
    np.testing.assert_allclose(small.draws[:, :2], whole.draws, rtol=1e-5)
    assert small.gap(0, 2).p == 1.0
    assert small.gap(0, 2).low == small.gap(0, 2).high == 0.0


def test_few_users_that_agree_make_no_claim():
    a, b = np.ones((1, 4)), np.zeros((1, 4))
    assert resample([a, b], np.arange(4), seed=1).gap(0, 1).p == 0.125
    assert resample([a, b], np.zeros(4, int), seed=1).gap(0, 1).p == 1.0


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        resample([np.array([[np.nan, 1.0]])], np.arange(2), seed=1)


def test_holm_by_its_definition():
    random = np.random.default_rng(1)
    for _ in range(50):
        p = random.random(7) ** 3
        adjusted = holm(p)
        for alpha in (0.01, 0.05, 0.2):
            rejected: set[int] = set()
            for step, index in enumerate(np.argsort(p)):  # stops at the first that is too large
                if p[index] > alpha / (len(p) - step):
                    break
                rejected.add(int(index))
            assert {i for i, value in enumerate(adjusted) if value <= alpha} == rejected


def test_models_share_a_letter_exactly_where_they_do_not_differ():
    random = np.random.default_rng(2)
    for _ in range(100):
        count = int(random.integers(1, 9))
        pairs = list(combinations(range(count), 2))
        differ = [one for one in pairs if random.random() < 0.5]
        letters = tie_letters(count, differ)
        for a, b in pairs:
            assert bool(set(letters[a]) & set(letters[b])) == ((a, b) not in differ)
    assert tie_letters(4, [(0, 2), (0, 3), (1, 3)]) == ["a", "ab", "bc", "c"]
    assert tie_letters(2, []) == ["a", "a"]
