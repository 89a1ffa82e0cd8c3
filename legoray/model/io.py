"""A model as a folder: weights as safetensors, everything else as JSON. No pickle.

<folder>/model.safetensors   every parameter and buffer, frozen language models' weights aside
<folder>/config.json         composition, sizes, recipe, checksum of the weights, what else is told
<folder>/tokenizer.json ...  what is needed to read new text
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from legoray.config import ModelConfig, build
from legoray.data.recipes import (
    CategoryRecipe,
    CodeRecipe,
    IdRecipe,
    InputSizes,
    JoinedRecipe,
    LayersRecipe,
    Recipe,
    StateRecipe,
    TokenRecipe,
    VectorRecipe,
    VectorSource,
)
from legoray.errors import DamagedError, InputError, Problem
from legoray.model.base import Shape
from legoray.model.inputs import Inputs, Recipes
from legoray.model.recommender import Recommender, build_recommender
from legoray.records import SHARED

FORMAT = 2
WEIGHTS, CONFIG = "model.safetensors", "config.json"
PARTS = ("content", "behavior", "predictor")

_RECIPES: dict[str, type] = {
    "id": IdRecipe,
    "tokens": TokenRecipe,
    "states": StateRecipe,
    "vectors": VectorRecipe,
    "codes": CodeRecipe,
    "layers": LayersRecipe,
    "categories": CategoryRecipe,
}


@dataclass(frozen=True)
class LoadedModel:
    """A model read from its folder, in evaluation mode."""

    recommender: Recommender
    config: ModelConfig
    shape: Shape
    recipes: Recipes
    extra: dict[str, Any]


def save_model(
    folder: Path,
    recommender: Recommender,
    *,
    config: ModelConfig,
    shape: Shape,
    recipes: Recipes,
    inputs: Inputs,
    extra: dict[str, Any],
) -> None:
    """Write a model's folder, in place of an older one if there is one.

    It is written under another name and moved into place: a folder of this name is always whole.

    Args:
        folder: where to.
        recommender: whose weights.
        config: what it was built from, and so were `shape` and `recipe`.
        shape: see there.
        recipes: see there.
        inputs: asked to write what is needed to read new text.
        extra: plain data to keep with it (metrics, protocol, titles).

    Raises:
        InputError: the folder cannot be written.
    """
    recover(folder)
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.new-"))
        temporary.chmod(0o755)
        save_file(model_state(recommender), temporary / WEIGHTS)
        (temporary / WEIGHTS).chmod(SHARED)
        inputs.save_assets(temporary)
        content = {
            "format": FORMAT,
            "model": config.model_dump(),
            "shape": asdict(shape),
            "recipes": recipes_to_json(recipes),
            "sha256": _sha256(temporary / WEIGHTS),
            "extra": extra,
        }
        (temporary / CONFIG).write_text(json.dumps(content, indent=1), encoding="utf-8")
        _swap(temporary, folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(Problem(str(folder), f"cannot be written: {reason}")) from None
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def load_model(folder: Path) -> LoadedModel:
    """Read a model's folder; the model is on the CPU and in evaluation mode.

    A warning says where it was trained on other weights of its language model than are here.

    Raises:
        InputError: the folder is missing, incomplete or damaged, or its parts cannot be had.
    """
    recover(folder)
    content = _read_config(folder)
    try:
        config = build(ModelConfig, content["model"])
        shape = _shape_from_json(content["shape"])
        recipes = recipes_from_json(content["recipes"])
        checksum, extra = content["sha256"], content["extra"]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder / CONFIG, f"{type(error).__name__} {error}") from None
    weights = _read_weights(folder / WEIGHTS, checksum)
    with torch.random.fork_rng(devices=[]):  # reading must not move anybody's random numbers
        recommender = build_recommender(config, shape)
    try:
        load_state(recommender, weights)
    except (RuntimeError, KeyError, ValueError) as error:
        raise _damaged(folder / WEIGHTS, str(error).replace("\n", " ")) from None
    from legoray.llm.units import warn_of_others

    warn_of_others(folder)
    return LoadedModel(recommender.eval(), config, shape, recipes, extra)


def saved_recipes(folder: Path) -> Recipes:
    """What a saved model reads of the data; its weights are not looked at.

    Raises:
        InputError: the folder is missing or damaged.
    """
    return recipes_from_json(_read_config(folder)["recipes"])


def saved_config(folder: Path) -> ModelConfig:
    """What a saved model was built from; its weights are not looked at.

    Raises:
        InputError: the folder is missing or damaged.
    """
    return build(ModelConfig, _read_config(folder).get("model"))


def model_state(recommender: Recommender) -> dict[str, Tensor]:
    """What must be kept of a model: all parameters and buffers, frozen language models' aside.

    A part says what that is by a method `saved_state() -> dict[str, Tensor]`; by default it is its
    whole state. The tensors are copies on the CPU, under `<part>.<name>`.
    """
    state: dict[str, Tensor] = {}
    for name in PARTS:
        part = getattr(recommender, name)
        own = part.saved_state() if hasattr(part, "saved_state") else part.state_dict()
        for key, value in own.items():
            state[f"{name}.{key}"] = value.detach().to("cpu", copy=True).contiguous()
    return state


def load_state(recommender: Recommender, state: dict[str, Tensor]) -> None:
    """Put back what `model_state` gave.

    Raises:
        RuntimeError: names or shapes are not this model's.
    """
    strange = [key for key in state if key.partition(".")[0] not in PARTS]
    if strange:
        raise RuntimeError(f"unexpected tensors: {', '.join(strange)}")
    for name in PARTS:
        part: nn.Module = getattr(recommender, name)
        prefix = f"{name}."
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        load = getattr(part, "load_saved_state", None) or part.load_state_dict
        load(own)


def recipes_to_json(recipes: Recipes) -> dict[str, Any]:
    """What a composition reads, as plain data."""
    return {
        "items": _recipe_to_json(recipes.items),
        "history": recipes.history and _recipe_to_json(recipes.history),
        "fields": list(recipes.fields),
    }


def recipes_from_json(content: dict[str, Any]) -> Recipes:
    """What `recipes_to_json` gave.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    return Recipes(
        items=_recipe_from_json(content["items"]),
        history=_recipe_from_json(content["history"]) if content["history"] else None,
        fields=tuple(content["fields"]),
    )


def _recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    if isinstance(recipe, JoinedRecipe):
        return {"kind": "joined", "parts": [_recipe_to_json(part) for part in recipe.parts]}
    kind = next(name for name, cls in _RECIPES.items() if type(recipe) is cls)
    return {"kind": kind, **asdict(recipe)}


def _recipe_from_json(content: dict[str, Any]) -> Recipe:
    own = {key: value for key, value in content.items() if key != "kind"}
    if content["kind"] == "joined":
        return JoinedRecipe(tuple(_recipe_from_json(part) for part in own["parts"]))
    for key, value in own.items():
        if isinstance(value, list):
            own[key] = tuple(value)
        elif isinstance(value, dict):
            own[key] = VectorSource(**value)
    recipe: Recipe = _RECIPES[content["kind"]](**own)
    return recipe


def _shape_from_json(content: dict[str, Any]) -> Shape:
    own = {key: _sizes_from_json(content[key]) for key in ("input", "history_input")}
    return Shape(**{**content, **own, "fields": tuple(content["fields"])})


def _sizes_from_json(content: dict[str, Any]) -> InputSizes:
    parts = tuple(_sizes_from_json(part) for part in content["parts"])
    return InputSizes(**{**content, "values": tuple(content["values"]), "parts": parts})


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        state = "is not a model's folder" if folder.is_dir() else "no such folder"
        raise InputError(Problem(str(folder), f"{state}: it has no {CONFIG}")) from None
    except (OSError, ValueError) as error:
        raise _damaged(file, str(error)) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _damaged(file, f"format {FORMAT} was expected")
    return content


def _read_weights(file: Path, checksum: str) -> dict[str, Tensor]:
    try:
        if _sha256(file) != checksum:
            raise _damaged(file, "its checksum is another")
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise _damaged(file, str(error)) from None


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _damaged(file: Path, reason: str) -> DamagedError:
    return DamagedError(Problem(str(file), f"is damaged: {reason}"))


def _aside(folder: Path) -> Path:
    """Where the older folder stands while the new one takes its place."""
    return folder.parent / f".{folder.name}.old"


def _swap(temporary: Path, folder: Path) -> None:
    """Put a whole folder in another's place."""
    old = _aside(folder)
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Undo a swap of a model's folder that was cut off between its two moves."""
    old = _aside(folder)
    if not old.exists():
        return
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(folder)
