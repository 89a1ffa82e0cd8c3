"""What a composition reads of a data set, and what it cannot."""

import pytest
from train_corpora import make_corpus, write_tables

from legoray.data.recipes import IdRecipe
from legoray.errors import InputError
from legoray.model.inputs import Recipes
from legoray.train.cache import shared_inputs


@pytest.fixture
def opened(tmp_path):
    corpus = make_corpus()
    tables = write_tables(tmp_path / "tables", corpus)

    def open_with(*fields):
        recipes = Recipes(IdRecipe(), fields=fields)
        return corpus, shared_inputs(recipes, tables, tmp_path, corpus)

    return open_with


def test_users_are_numbered_by_who_is_in_training(opened):
    corpus, inputs = opened()
    train = set(corpus.splits["train"].user.tolist())
    assert inputs.user_count == len(train) + 1
    known = {user for user, number in enumerate(corpus.known_users) if number}
    assert known == train
    assert sorted(corpus.known_users[sorted(train)]) == list(range(1, len(train) + 1))


def test_fields_of_the_moment_need_times(opened):
    with pytest.raises(InputError, match=r"no times, which time\.hour would be made of"):
        opened("time.hour")


def test_unknown_fields_name_the_nearest(opened):
    with pytest.raises(InputError, match=r"did you mean 'time\.hour'"):
        opened("time.hours")


def test_what_trials_share_is_opened_once_per_process(opened):
    first, second, plain = (opened(*names)[1] for names in (["item.title"], ["item.title"], []))
    assert first.fields is second.fields
    assert first.items is second.items is plain.items
    assert plain.fields is None
