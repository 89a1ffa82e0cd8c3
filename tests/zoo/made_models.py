"""Models made by hand: random weights of a seed, real folders."""

from __future__ import annotations

from pathlib import Path

import torch

from legoray.config import ModelConfig
from legoray.data.recipes import IdRecipe, JoinedRecipe, StateRecipe
from legoray.data.tokenization import word_tokenizer
from legoray.data.tokens import make_table
from legoray.llm.store import states_of_texts
from legoray.model.features import IdFeatures, TokenFeatures
from legoray.model.inputs import Inputs, Recipes
from legoray.model.io import save_model
from legoray.model.recommender import recipes_of, seeded, shape_of
from legoray.model.stored import JoinedFeatures

ATTRIBUTES = ("title", "category")
MAX_HISTORY = 4
ROWS = [
    {"title": "Storm closes the coastal road", "category": "weather"},
    {"title": "Striker scores twice in the cup final", "category": "sport"},
    {"title": "Markets fall after the bank's warning", "category": "finance"},
    {"title": "Choir sings in the old harbour", "category": "culture"},
    {"title": "Rain and storm again", "category": "weather"},
    {"title": "The bank wins the cup", "category": "sport"},
]


def token_features(recipe, rows=ROWS):
    """Features of some items, made without prepared tables."""
    columns = [[row[name] for row in rows] for name in recipe.attributes]
    words = word_tokenizer([row[name] for row in ROWS for name in recipe.attributes])
    tables = [
        make_table(texts, length=recipe.length, tokenizer=words, shift=0) for texts in columns
    ]
    return TokenFeatures(tables, words, 0)


def save_cnn(folder: Path, behavior="attention", predictor="dot") -> Path:
    """A `cnn` model of random weights."""
    config = ModelConfig(
        hidden_size=16,
        content={"name": "cnn", "min_count": 1},
        behavior={"name": behavior},
        predictor={"name": predictor},
    )
    recipes = recipes_of(config, ATTRIBUTES)
    return _save(folder, config, recipes, Inputs(token_features(recipes.items)))


def save_with(folder: Path, content, text=ATTRIBUTES) -> Path:
    """A model whose content operator reads hidden states, or has parts that do."""
    config = ModelConfig(
        hidden_size=8, content=content, behavior={"name": "pooling"}, predictor={"name": "dot"}
    )
    recipes = recipes_of(config, text)
    return _save(folder, config, recipes, Inputs(_state_features(recipes.items)))


def _state_features(recipe):
    if isinstance(recipe, JoinedRecipe):
        return JoinedFeatures([_state_features(part) for part in recipe.parts])
    if isinstance(recipe, StateRecipe):
        return states_of_texts(recipe, ROWS)
    return IdFeatures(len(ROWS) + 1)


def save_id(folder: Path) -> Path:
    """A model that knows items by number alone."""
    config = ModelConfig(
        hidden_size=16,
        content={"name": "id"},
        behavior={"name": "pooling"},
        predictor={"name": "dot"},
    )
    return _save(folder, config, Recipes(IdRecipe()), Inputs(IdFeatures(len(ROWS) + 1)))


def _save(folder, config, recipes, inputs) -> Path:
    shape = shape_of(config, inputs, MAX_HISTORY)
    model = seeded(config, shape, 3)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        trained = (p for p in model.parameters() if p.requires_grad)
        for parameter in trained:  # none at a special value such as zero
            parameter.add_(torch.randn_like(parameter) * 0.1)
    details = {"config": config, "shape": shape, "recipes": recipes, "inputs": inputs}
    save_model(folder, model, **details, extra={})
    return folder
