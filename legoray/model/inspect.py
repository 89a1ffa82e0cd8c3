"""What a user's own part does wrong, said in its terms before anything is trained.

LegoRay's own parts keep these contracts in its test suite; a part that comes from elsewhere
(`package.module:Class`) is held against them on one batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from legoray.data.recipes import Tokens
from legoray.errors import InputError, Problem
from legoray.model.base import Batch, History, PartConfig, UserKind, UserState

if TYPE_CHECKING:
    from legoray.model.recommender import Recommender

CLOSE = 1e-4  # what float32 may differ by
KIND_WORDS = {
    "content": "content operator",
    "behavior": "behavior operator",
    "predictor": "click predictor",
}
USER_SHAPES = {"vector": "[B, D]", "interests": "[B, M, D]", "sequence": "[B, H, D]"}


class Wrong(Exception):
    """A part breaks its contract: what it does, and what was expected."""


def class_problems(kind: str, cls: type[Any], where: str, name: str) -> list[Problem]:
    """What a class lacks to be a part, from its declarations alone."""
    found: list[tuple[str, str]] = []
    config = getattr(cls, "Config", None)
    if not (isinstance(config, type) and issubclass(config, PartConfig)):
        found.append(("has no Config", "Config = a class derived from PartConfig, its settings"))
    kinds = get_args(UserKind)
    if kind == "behavior" and getattr(cls, "produces", None) not in kinds:
        found.append(("does not say what it produces", f"produces = {_either(kinds)}"))
    accepts = getattr(cls, "accepts", None) if kind == "predictor" else frozenset(kinds)
    if not (isinstance(accepts, frozenset | set) and accepts and accepts <= set(kinds)):
        found.append(("does not say what it accepts", f"accepts = a frozenset of {_either(kinds)}"))
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        found.append((f"lacks {' and '.join(missing)}", "see docs/own_operator.md"))
    try:
        inspect.signature(cls).bind(None, None)
    except TypeError as error:
        found.append((f"is not built by (config, shape): {error}", "__init__(self, config, shape)"))
    return [Problem(where, f"'{name}' {what}", f"expected: {hint}") for what, hint in found]


def _either(words: tuple[str, ...]) -> str:
    return " or ".join(repr(word) for word in words)


def check_parts(model: Recommender, batch: Batch, hidden_size: int) -> list[Problem]:
    """What parts that are not LegoRay's do wrong on one batch; the first mistake ends the look."""
    if not any(_own(part) for part in (model.content, model.behavior, model.predictor)):
        return []
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return _Look(model, batch, hidden_size).problems()
    finally:
        model.train(training)


def check_gradients(model: Recommender) -> list[Problem]:
    """Parameters of parts that are not LegoRay's to which a backward pass gave no gradient."""
    found = []
    for kind in ("content", "behavior", "predictor"):
        part = getattr(model, kind)
        named = part.named_parameters() if _own(part) else ()
        idle = [name for name, p in named if p.requires_grad and p.grad is None]
        if idle:
            where = f"{KIND_WORDS[kind]} '{_name(part)}'"
            message = f"its parameters {', '.join(idle[:3])} get no gradient"
            hint = "use them in forward, or set requires_grad to False"
            found.append(Problem(where, message, hint))
    return found


class _Look:
    """Content, behavior and predictor in turn, each fed by the one before."""

    def __init__(self, model: Recommender, batch: Batch, hidden_size: int) -> None:
        self.model, self.batch, self.size = model, batch, hidden_size
        self.count = int(max(batch.history.max(), batch.candidates.max()))  # distinct items
        self.users, self.width = batch.candidates.shape
        self.table = torch.zeros(0)  # the items' vectors below a row of padding
        self.candidates = torch.zeros(0)

    def problems(self) -> list[Problem]:
        """The first mistake."""
        model = self.model
        stages: dict[str, tuple[nn.Module, Callable[[], None]]] = {
            "content": (model.content, self.content),
            "behavior": (model.behavior, self.behavior),
            "predictor": (model.predictor, self.predictor),
        }
        for kind, (part, stage) in stages.items():
            where = f"{KIND_WORDS[kind]} '{_name(part)}'"
            try:
                stage()
            except InputError as error:
                return error.problems
            except Wrong as error:
                return [Problem(where, *error.args)]
            except Exception as error:  # of whatever the user wrote
                return [Problem(where, f"raises {type(error).__name__}: {error}")]
        return []

    def content(self) -> None:
        """One vector per item, whatever stands under the tokens' mask."""
        inputs = self.batch.items
        items = _checked(self.model.content(inputs), (self.count, self.size), "[N, D]")
        if isinstance(inputs, Tokens):
            noise = Tokens(torch.where(inputs.mask, inputs.ids, 1), inputs.mask, inputs.attribute)
            _same(self.model.content(noise), items)
        self.table = F.pad(items, (0, 0, 1, 0))
        self.candidates = F.embedding(self.batch.candidates, self.table)

    def behavior(self) -> None:
        """A state of the declared kind, whatever stands under the history's mask."""
        state = self._user(self._history())
        _same(self._user(self._history(noise=1e3)).values, state.values)
        self._user(self._history(empty=True))

    def predictor(self) -> None:
        """One score per candidate."""
        user = self.model.encode_users(self._history())
        scores = self.model.score(user, self.candidates, self.batch.fields)
        _checked(scores, (self.users, self.width), "[B, K]")

    def _history(self, *, noise: float = 0.0, empty: bool = False) -> History:
        """The histories, with noise under the mask, or with nothing in the first one."""
        batch = self.batch
        mask = batch.history > 0
        if empty:
            mask[0] = False
        vectors = F.embedding(batch.history, self.table)
        vectors = vectors.masked_fill(~mask.unsqueeze(-1), noise)
        return History(vectors, mask, batch.users, batch.history_items, batch.history)

    def _user(self, history: History) -> UserState:
        behavior = self.model.behavior
        each = behavior.looks_at_candidates
        if each:  # a model calls it with no more of the history than this
            history = History(history.vectors, history.mask)
        state = behavior(history, self.candidates) if each else behavior(history)
        if not isinstance(state, UserState):
            raise Wrong(f"gives {_described(state)}", "expected a UserState")
        if state.kind != behavior.produces:
            raise Wrong(f"gives a state '{state.kind}'", f"it declares '{behavior.produces}'")
        said = USER_SHAPES[state.kind].replace("[B", "[B, K") if each else USER_SHAPES[state.kind]
        start = (self.users, self.width) if each else (self.users,)
        middle = () if state.kind == "vector" else (None,)
        _checked(state.values, (*start, *middle, self.size), said)
        if state.kind == "sequence" and (
            state.mask is None or state.mask.shape != state.values.shape[:-1]
        ):
            raise Wrong("gives a sequence without a mask of its shape", "expected mask [B, H]")
        if state.penalty is not None:
            _checked(state.penalty, (self.users,), "a penalty [B]")
        return state


def _checked(values: Any, shape: tuple[int | None, ...], said: str) -> Tensor:
    """A tensor of real numbers of this shape; None stands for any size."""
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    expected = f"expected {said} = [{wanted}]"
    if not isinstance(values, Tensor):
        raise Wrong(f"gives {_described(values)}", expected)
    fits = len(values.shape) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, values.shape, strict=True)
    )
    if not fits:
        raise Wrong(f"gives the shape {list(values.shape)}", expected)
    if not values.is_floating_point():
        raise Wrong(f"gives {values.dtype}", f"{expected} of real numbers")
    if not bool(torch.isfinite(values).all()):
        raise Wrong("gives NaN or infinite values", "also for padding and empty histories?")
    return values


def _same(noisy: Any, clean: Tensor) -> None:
    """Whether what stands under a mask changes nothing."""
    alike = isinstance(noisy, Tensor) and noisy.shape == clean.shape
    if not alike or not torch.allclose(noisy, clean, atol=CLOSE, rtol=CLOSE):
        raise Wrong("reads what stands under the mask", "padding must change nothing")


def _own(part: nn.Module) -> bool:
    """Whether a part is not LegoRay's."""
    return not type(part).__module__.startswith("legoray.")


def _name(part: nn.Module) -> str:
    cls = type(part)
    return f"{cls.__module__}:{cls.__qualname__}"


def _described(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
