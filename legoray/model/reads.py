"""Which attributes a composition reads, and which texts of them that later changed it read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from legoray.config import ModelConfig
from legoray.data.schema import Manifest
from legoray.errors import InputError
from legoray.llm.text import template_attributes
from legoray.model.inputs import Recipes
from legoray.model.recommender import recipes_of

LISTED = ("attributes", "vocabulary")


def names_in(recipe: Any) -> list[str]:
    """The attributes of items that a recipe reads, each once, in order."""
    return list(dict.fromkeys(_names(recipe)))


def _names(recipe: Any) -> Iterator[str]:
    """By the names of the recipe's fields, so that a new kind of recipe is not forgotten."""
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if field.name in LISTED:
            yield from value
        elif field.name == "template" and value:
            yield from template_attributes(value)
        for part in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(part):
                yield from _names(part)


def prints_of(manifest: Manifest) -> dict[str, str]:
    """Attribute -> fingerprint of all that were written later; those of users as `user.name`."""
    places = {"items": "", "users": "user."}
    return {places[table.of] + name: table.fingerprint for name, table in manifest.written.items()}


def reads_of(recipes: Recipes, prints: Mapping[str, str]) -> dict[str, str]:
    """Attribute -> fingerprint of its texts for all that recipes read; raw ones have none.

    Args:
        recipes: of a composition.
        prints: as `prints_of`.
    """
    names = [*names_in(recipes.items), *(names_in(recipes.history) if recipes.history else ())]
    fields = [name.removeprefix("item.") for name in recipes.fields if not name.startswith("time.")]
    return {name: prints.get(name, "")[:16] for name in dict.fromkeys([*names, *fields])}


def reads_of_config(
    config: Mapping[str, Any], text: Sequence[str], prints: Mapping[str, str]
) -> dict[str, str]:
    """`reads_of` for a trial's configuration as plain data.

    A baseline reads nothing, and neither does what cannot be built: it will not be trained.
    """
    if not config.get("model"):
        return {}
    try:
        recipes = recipes_of(ModelConfig.model_validate(config["model"]), tuple(text))
    except (InputError, ValidationError):
        return {}
    return reads_of(recipes, prints)
