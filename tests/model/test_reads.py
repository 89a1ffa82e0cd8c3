"""Which attributes a composition reads: of every kind of recipe, whatever it is nested in."""

from __future__ import annotations

import pytest

from legoray.data.recipes import (
    CategoryRecipe,
    CodeRecipe,
    IdRecipe,
    JoinedRecipe,
    LayersRecipe,
    StateRecipe,
    TokenRecipe,
    VectorRecipe,
    VectorSource,
)
from legoray.model.inputs import Recipes
from legoray.model.reads import names_in, reads_of, reads_of_config

TOKENS = TokenRecipe("words", ("title",), 9)
OF_MODEL = VectorSource(model="m", template="{summary}. {title}")
RECIPES = [
    (IdRecipe(), []),
    (TOKENS, ["title"]),
    (TokenRecipe("words", ("title",), 9, 1, ("title", "body")), ["title", "body"]),
    (StateRecipe("m", 1, "{title-augmented} ({category})", 9, "float32"),
     ["title-augmented", "category"]),
    (VectorRecipe(OF_MODEL), ["summary", "title"]),
    (VectorRecipe(VectorSource(file="/a.npy")), []),
    (CodeRecipe(2, 4, vectors=OF_MODEL), ["summary", "title"]),
    (LayersRecipe("m", "{title}", 9), ["title"]),
    (CategoryRecipe(("category",)), ["category"]),
    (JoinedRecipe((TOKENS, JoinedRecipe((CategoryRecipe(("topic",)), IdRecipe())))),
     ["title", "topic"]),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "names"), RECIPES)
def test_the_attributes_of_a_recipe(recipe, names):
    assert names_in(recipe) == names


def test_written_attributes_come_with_their_fingerprints():
    prints = {"summary": "1" * 64, "user.profile": "2" * 64, "other": "3" * 64}
    recipes = Recipes(
        items=TOKENS,
        history=VectorRecipe(OF_MODEL),
        fields=("item.title", "item.topic", "user.profile", "time.hour"),
    )
    assert reads_of(recipes, prints) == {
        "title": "", "summary": "1" * 16, "topic": "", "user.profile": "2" * 16,
    }  # fmt: skip


def test_a_configuration_reads_the_data_sets_text_by_default():
    model = {
        "hidden_size": 8,
        "content": {"name": "pooling"},
        "behavior": {"name": "pooling"},
        "predictor": {"name": "dot"},
    }
    assert reads_of_config({"model": model}, ["title"], {}) == {"title": ""}
    own = {**model, "content": {"name": "pooling", "attributes": ["summary"]}}
    prints = {"summary": "1" * 64}
    assert reads_of_config({"model": own}, ["title"], prints) == {"summary": "1" * 16}
    assert reads_of_config({"model": {**model, "content": {"name": "id"}}}, ["title"], {}) == {}
    assert reads_of_config({}, ["title"], {}) == {}
    assert reads_of_config({"model": {**model, "content": {"name": "poling"}}}, ["title"], {}) == {}
