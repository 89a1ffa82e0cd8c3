"""`legoray export`: the language model inside a trained model, for other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from legoray.data.recipes import StateRecipe, leaves
from legoray.errors import InputError, Problem, unknown
from legoray.llm.export import Trained, check_target, export_adapters, export_merged
from legoray.model.content.llm import LlmOperator
from legoray.model.io import LoadedModel, load_model
from legoray.zoo.locate import located


def export(
    model: str | Path,
    folder: Path,
    *,
    merge: bool,
    part: str | None,
    tracking: str,
    say: Callable[[str], None],
) -> None:
    """Write what was trained of a model's language model, and its head.

    Args:
        model: a folder, `models:/name@champion`, or a run (see `legoray.zoo.locate`).
        folder: where to; it must not exist, or be empty.
        merge: the whole language model in float32, instead of adapters to be put on it.
        part: which language model, in a content operator that holds several.
        tracking: MLflow's address.
        say: told what was written.

    Raises:
        InputError: no such model, one without a language model, nothing that could be written, or
            a folder that cannot be.
    """
    check_target(folder)
    with located(model, tracking) as place:
        trained = language_model(load_model(place), str(model), part)
        write = export_merged if merge else export_adapters
        write(trained, folder)
    for line in _told(trained, folder, merged=merge):
        say(line)


def language_model(loaded: LoadedModel, name: str, part: str | None = None) -> Trained:
    """What was trained of the language model in a content operator, or of one of several.

    Raises:
        InputError: there is none, none of that name, or several and none was named.
    """
    modules = loaded.recommender.content.named_modules()
    operators = {where: own for where, own in modules if isinstance(own, LlmOperator)}
    kind = str(loaded.config.content["name"])
    if not operators:
        message = f"its content operator '{kind}' trains no language model"
        raise InputError(Problem(name, message, "export takes models with 'llm' in them"))
    if part is not None and part not in operators:
        raise InputError(unknown("language model", part, [key for key in operators if key], name))
    if part is None and len(operators) > 1:
        message = f"'{kind}' holds {len(operators)} language models: {', '.join(operators)}"
        hint = f"say which, such as --part {next(iter(operators))}"
        raise InputError(Problem(name, message, hint))
    where = part if part is not None else next(iter(operators))
    # both in the order in which the operator was given its parts
    recipes = [one for one in leaves(loaded.recipes.items) if isinstance(one, StateRecipe)]
    recipe = recipes[list(operators).index(where)]
    return _trained(operators[where], recipe, f"{kind}.{where}" if where else kind)


def _trained(operator: LlmOperator, recipe: StateRecipe, where: str) -> Trained:
    settings = operator.config
    about: dict[str, Any] = {
        "part": where,
        "tune": settings.tune or ("lora" if settings.lora is not None else "head"),
        "split": recipe.split,
        "precision": recipe.precision,
        "template": recipe.template,
        "length": recipe.length,
        "pooling": settings.pooling,
        "input_size": operator.project.in_features,
        "output_size": operator.project.out_features,
    }
    return Trained(recipe.model, settings.lora, operator.saved_state(), about)


def _told(trained: Trained, folder: Path, *, merged: bool) -> list[str]:
    """What was written, and how to read it."""
    about, numbers = trained.about, trained.adapters or trained.weights
    count = sum(tensor.numel() for tensor in numbers.values())
    what = f"{count:,} numbers of {'adapters' if trained.adapters else 'its own weights'}"
    trained_above = f"{what} trained above layer {about['split']}" if count else "none trained"
    if merged:
        lines = [
            f"{folder}: {trained.model} in float32, with {trained_above}",
            f"  transformers.AutoModel.from_pretrained('{folder}')",
            f"  model: {folder.absolute()}   # in a search space",
        ]
    else:
        lines = [
            f"{folder}: {trained_above}, for {trained.model}",
            f"  peft.PeftModel.from_pretrained(<{trained.model}>, '{folder}')",
        ]
    size, pooling = about["output_size"], about["pooling"]
    lines.append(f"  head.safetensors, head.json: {pooling} pooling, a projection to {size}")
    if about["precision"] != "float32":
        lines.append(f"it was trained on {about['precision']} weights: vectors differ by rounding")
    if about["part"] != "llm":
        lines.append(f"the rest of '{about['part'].partition('.')[0]}' is not in it")
    return lines
