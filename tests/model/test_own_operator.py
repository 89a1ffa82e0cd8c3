"""Parts of a user's own package: used by their import path, their mistakes named at the check."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from model_cases import HIDDEN, N, batch_of, cases, first_case, small_shape
from torch import Tensor, nn

from legoray.config import ModelConfig
from legoray.data.recipes import IdRecipe, Recipe
from legoray.errors import InputError
from legoray.model.base import (
    BehaviorOperator,
    ClickPredictor,
    ContentOperator,
    History,
    PartConfig,
    Shape,
    UserState,
)
from legoray.model.inspect import check_gradients, check_parts
from legoray.model.recommender import Recommender, build_recommender
from legoray.model.registry import part_class

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "own_operator.md"


# --- the example of the documentation


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of `mypackage`, as the page writes it, on the import path."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    folder = tmp_path / "mypackage"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "operators.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [n for n in sys.modules if n.partition(".")[0] == "mypackage"]:
        del sys.modules[name]


def model_of(content="id", behavior="pooling", predictor="dot", features_of=None):
    """A recommender with parts given by class or by name, and a batch for it."""
    given = {"content": content, "behavior": behavior, "predictor": predictor}
    classes = {
        kind: part_class(kind, part) if isinstance(part, str) else part
        for kind, part in given.items()
    }
    recipe = classes["content"].recipe(classes["content"].Config(), ("title", "abstract"))
    features = features_of(recipe)
    shape = small_shape(input=features.sizes, item_count=N + 1)
    parts = [cls(cls.Config(), shape) for cls in classes.values()]
    return Recommender(*parts).eval(), batch_of(features, torch.tensor([2, 3, 5, 7, 9]))


def test_the_example_keeps_the_contracts(package, features_of):
    model, batch = model_of(
        "mypackage.operators:SurpriseOperator",
        "mypackage.operators:RecencyOperator",
        features_of=features_of,
    )
    assert check_parts(model, batch, HIDDEN) == []
    model(batch).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_example_weighs_by_age(package):
    cls = part_class("behavior", "mypackage.operators:RecencyOperator")
    operator = cls(cls.Config(half_life=1.0), small_shape())
    vectors = torch.arange(3.0)[None, :, None].expand(1, 3, HIDDEN)
    state = operator(History(vectors, torch.tensor([[True, True, True]])))
    expected = (0.25 * 0 + 0.5 * 1 + 1.0 * 2) / 1.75
    torch.testing.assert_close(state.values, torch.full((1, HIDDEN), expected))


SPACE = """\
name: own
data: {data}
model:
  hidden_size: 8
  content: {{name: "mypackage.operators:SurpriseOperator", embedding_size: 8, length: 8}}
  behavior: {{name: "mypackage.operators:RecencyOperator", half_life: {{choice: [1.0, 4.0]}}}}
  predictor: {{name: dot}}
train: {{epochs: 1, batch_size: 512, max_history: 5}}
evaluate: {{metrics: [auc], select: auc}}
search: {{trials: 2, trainer: warm, concurrent: 1, scheduler: {{name: none}}}}
final: {{top: 1, seeds: 1, baselines: []}}
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_a_search_with_parts_of_a_package_in_the_current_folder(package, tmp_path):
    data = ROOT / "datasets" / "mind_sample.yaml"
    (tmp_path / "own.yaml").write_text(SPACE.format(data=data))
    environment = {**os.environ, "LEGORAY_HOME": str(tmp_path / "home")}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_search.py"), "own.yaml"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SurpriseOperator+RecencyOperator+dot  completed after 1 epoch") == 3
    assert "MLflow does not have" not in done.stdout
    best = next((tmp_path / "sweeps" / "own" / "models").glob("*/best"))
    from legoray.model.io import load_model

    loaded = load_model(best)
    assert type(loaded.recommender.content).__name__ == "SurpriseOperator"


# --- mistakes in the class itself, told when a space is read


class Plain(ContentOperator):
    """An identifier table."""

    Config: ClassVar[type[PartConfig]] = PartConfig

    def __init__(self, config: PartConfig, shape: Shape) -> None:
        super().__init__()
        self.table = nn.Embedding(shape.item_count, shape.hidden_size)

    @classmethod
    def recipe(cls, config: Any, text: tuple[str, ...]) -> Recipe:
        return IdRecipe()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.table(inputs)


class NoConfig(ContentOperator):
    def __init__(self, config: PartConfig, shape: Shape) -> None:
        super().__init__()

    @classmethod
    def recipe(cls, config: Any, text: tuple[str, ...]) -> Recipe:
        return IdRecipe()

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


class NoRecipe(Plain):
    @classmethod
    def recipe(cls, config: Any, text: tuple[str, ...]) -> Any:
        return "titles"


class BrokenRecipe(Plain):
    @classmethod
    def recipe(cls, config: Any, text: tuple[str, ...]) -> Any:
        return config.nothing_of_that_name


class Unfinished(ContentOperator):
    Config: ClassVar[type[PartConfig]] = PartConfig


class NoState(BehaviorOperator):
    Config: ClassVar[type[PartConfig]] = PartConfig

    def __init__(self, config: PartConfig, shape: Shape) -> None:
        super().__init__()

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        return UserState("vector", history.vectors.sum(dim=1))


class WrongState(NoState):
    produces = "vectors"


class NoAccepts(ClickPredictor):
    Config: ClassVar[type[PartConfig]] = PartConfig

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        return candidates.sum(dim=-1)


class OtherArguments(Plain):
    def __init__(self, config: PartConfig) -> None:
        super().__init__(config, small_shape())


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("content", "NoConfig", ["has no Config", "PartConfig"]),
        ("content", "Unfinished", ["lacks forward and recipe", "docs/own_operator.md"]),
        ("content", "OtherArguments", ["is not built by (config, shape)", "__init__(self,"]),
        ("behavior", "NoState", ["does not say what it produces", "'vector' or 'interests'"]),
        ("behavior", "WrongState", ["does not say what it produces"]),
        ("behavior", "Plain", ["is no behavior operator", "derive it from BehaviorOperator"]),
        ("predictor", "NoAccepts", ["does not say what it accepts", "frozenset"]),
        ("content", "Missing", ["cannot be imported", "Missing"]),
    ],
)
def test_a_class_that_lacks_something(kind, name, words):
    with pytest.raises(InputError) as caught:
        part_class(kind, f"{__name__}:{name}", "space.yaml:5")
    (problem,) = [str(p) for p in caught.value.problems]
    assert problem.startswith(f"space.yaml:5: '{__name__}:{name}' ")
    for word in words:
        assert word in problem, problem


def test_everything_that_a_class_lacks_comes_at_once():
    class Empty(BehaviorOperator):
        def __init__(self) -> None:
            super().__init__()

    from legoray.model.inspect import class_problems

    assert len(class_problems("behavior", Empty, "", "my:Empty")) == 4


def test_a_module_that_is_broken_or_not_there(tmp_path, monkeypatch):
    (tmp_path / "broken_own.py").write_text("def x(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"broken_own:X' cannot be imported: SyntaxError"):
        part_class("content", "broken_own:X")
    with pytest.raises(InputError, match=r"cannot be imported.*PYTHONPATH or installed"):
        part_class("content", "nowhere.at_all:X")


def test_a_recipe_that_is_none():
    from legoray.search.space import recipe_of

    with pytest.raises(InputError, match=r"NoRecipe' gives 'titles' as its recipe .*TokenRecipe"):
        recipe_of({"name": f"{__name__}:NoRecipe"}, ("title",))


def test_a_recipe_that_raises():
    from legoray.search.space import recipe_of

    with pytest.raises(InputError, match=r"the recipe of '.*BrokenRecipe' raises AttributeError"):
        recipe_of({"name": f"{__name__}:BrokenRecipe"}, ("title",))


# --- mistakes that one batch shows


class Narrow(Plain):
    def forward(self, inputs: Tensor) -> Tensor:
        return self.table(inputs)[:, :3]


class Whole(Plain):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.ones(len(inputs), self.table.embedding_dim, dtype=torch.long)


class NotANumber(Plain):
    def forward(self, inputs: Tensor) -> Tensor:
        return self.table(inputs) / 0.0


class Nothing(Plain):
    def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[return]
        self.table(inputs)


class Raises(Plain):
    def forward(self, inputs: Tensor) -> Tensor:
        return self.table(inputs) @ torch.ones(3, 3)


class Sums(NoState):
    """Reads what stands under the mask."""

    produces = "vector"


class PerItem(NoState):
    produces = "vector"

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        return UserState("vector", history.vectors)


class Liar(NoState):
    produces = "interests"

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        return UserState("vector", history.vectors.masked_fill(~history.mask[..., None], 0).sum(1))


class Bare(NoState):
    produces = "vector"

    def forward(self, history: History, candidates: Tensor | None = None) -> Any:
        return history.vectors.sum(dim=1)


class Unmasked(NoState):
    produces = "sequence"

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        return UserState("sequence", history.vectors.masked_fill(~history.mask[..., None], 0))


class Empty(NoState):
    """Divides by the length of the history."""

    produces = "vector"

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        total = history.vectors.masked_fill(~history.mask[..., None], 0).sum(dim=1)
        return UserState("vector", total / history.mask.sum(dim=1, keepdim=True))


class OneScore(ClickPredictor):
    Config: ClassVar[type[PartConfig]] = PartConfig
    accepts = frozenset({"vector"})

    def __init__(self, config: PartConfig, shape: Shape) -> None:
        super().__init__()

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        return user.values.sum(dim=-1)


@pytest.mark.parametrize(
    ("kind", "cls", "words"),
    [
        ("content", Narrow, "gives the shape [5, 3] (expected [N, D] = [5, 8])"),
        ("content", Whole, "gives torch.int64 (expected [N, D] = [5, 8] of real numbers)"),
        ("content", NotANumber, "gives NaN or infinite values"),
        ("content", Nothing, "gives nothing (expected [N, D] = [5, 8])"),
        ("content", Raises, "raises RuntimeError: mat1 and mat2"),
        ("behavior", Sums, "reads what stands under the mask (padding must change nothing)"),
        ("behavior", PerItem, "gives the shape [4, 4, 8] (expected [B, D] = [4, 8])"),
        ("behavior", Liar, "gives a state 'vector' (it declares 'interests')"),
        ("behavior", Bare, "gives a Tensor (expected a UserState)"),
        ("behavior", Unmasked, "gives a sequence without a mask of its shape"),
        ("behavior", Empty, "gives NaN or infinite values (also for padding and empty histories?)"),
        ("predictor", OneScore, "gives the shape [4] (expected [B, K] = [4, 3])"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_part_that_breaks_its_contract_is_named(kind, cls, words, features_of):
    model, batch = model_of(**{kind: cls}, features_of=features_of)
    if cls is Empty:  # also where no history of the batch is empty
        batch.history[batch.history == 0] = 1
    (problem,) = check_parts(model, batch, HIDDEN)
    kinds = {"predictor": "click predictor"}
    assert problem.where == f"{kinds.get(kind, f'{kind} operator')} '{__name__}:{cls.__name__}'"
    assert words in str(problem)
    assert model.training is False, "left as it was"


class Idle(Plain):
    """Has a parameter that it never uses."""

    def __init__(self, config: PartConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.spare = nn.Linear(2, 2)


def test_a_parameter_that_is_never_used_is_named(features_of):
    model, batch = model_of(content=Idle, features_of=features_of)
    model(batch).sum().backward()
    (problem,) = check_gradients(model)
    assert problem.where == f"content operator '{__name__}:Idle'"
    assert "its parameters spare.weight, spare.bias get no gradient" in str(problem)


class Unbuilt(Plain):
    def __init__(self, config: PartConfig, shape: Shape) -> None:
        raise KeyError("width")


def test_a_part_that_cannot_be_built_is_named():
    config = ModelConfig(
        hidden_size=HIDDEN,
        content={"name": f"{__name__}:Unbuilt"},
        behavior={"name": "pooling"},
        predictor={"name": "dot"},
    )
    with pytest.raises(InputError, match=r":Unbuilt'.* cannot be built: KeyError: 'width'"):
        build_recommender(config, Shape(HIDDEN, 5, 4))


class AsksWho(NoState):
    """Wants more of the history than a model gives to operators that look at candidates."""

    produces = "vector"
    looks_at_candidates = True
    reads_users = True

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        assert history.users is not None
        return UserState("vector", candidates + history.users[:, None, None])


def test_an_operator_that_looks_at_candidates_is_looked_at_as_a_model_calls_it(features_of):
    model, batch = model_of(behavior=AsksWho, features_of=features_of)
    (problem,) = check_parts(model, replace(batch, users=torch.tensor([2, 1, 4, 0])), HIDDEN)
    assert problem.where == f"behavior operator '{__name__}:AsksWho'"
    assert "raises AssertionError" in str(problem)


@pytest.mark.parametrize("case", [c for kind in ("behavior", "predictor") for c in cases(kind)])
def test_parts_of_legoray_pass_the_same_look(case, features_of, monkeypatch, tiny):
    """The look itself is right: no part that keeps the contracts is refused."""
    from legoray.model import inspect
    from legoray.model.compose import explain

    monkeypatch.setattr(inspect, "_own", lambda part: True)
    settings = {"content": {"name": "id"}, case.kind: case.config(tiny)}
    if case.kind == "behavior":
        options = [first_case("predictor", n).config(tiny) for n in ("dot", "din", "miner")]
        fits = [o for o in options if not explain("id", case.name, o["name"])]
        settings["predictor"] = fits[0]
    else:
        options = [first_case("behavior", n).config(tiny) for n in ("pooling", "none")]
        options.append(first_case("behavior", "poly-attention").config(tiny))
        fits = [o for o in options if not explain("id", o["name"], case.name)]
        settings["behavior"] = fits[0]
    config = ModelConfig(hidden_size=HIDDEN, **settings)
    model, batch = looked_at(config, features_of)
    assert inspect.check_parts(model, batch, HIDDEN) == []


def looked_at(config, features_of):
    from legoray.model.inputs import Inputs
    from legoray.model.recommender import recipes_of, seeded, shape_of

    recipes = recipes_of(config, ("title", "abstract"))
    if recipes.fields:
        pytest.skip("its fields are of the whole data set's")
    history = features_of(recipes.history) if recipes.history else None
    inputs = Inputs(features_of(recipes.items), history, None, 5)
    items = torch.tensor([2, 3, 5, 7, 9])
    batch = batch_of(inputs.items, items)
    batch = replace(batch, users=torch.tensor([2, 1, 4, 0]), history_items=inputs.of_history(items))
    return seeded(config, shape_of(config, inputs, 10), 1).eval(), batch
