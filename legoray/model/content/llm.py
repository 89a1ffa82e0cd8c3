"""`llm`: the upper layers of a language model over stored hidden states, LoRA, a pooling head."""

from __future__ import annotations

import copy
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from legoray.config import Positive
from legoray.data.recipes import StateRecipe, States
from legoray.errors import InputError, Problem
from legoray.llm.bfloat import cast_adapters, computing
from legoray.llm.catalogue import folder_problem
from legoray.llm.load import facts, load_base, settle_quantized
from legoray.llm.lora import (
    LoraSettings,
    adapters,
    add_lora,
    copy_into,
    projections_of_family,
    resolve_targets,
)
from legoray.llm.onequery import OneQuery, plan
from legoray.llm.precision import Precision, precision_problem
from legoray.llm.quantized import shared_copy
from legoray.llm.split import layers_of, run_view, upper_view
from legoray.llm.text import default_template, template_pieces
from legoray.llm.tuning import Tune, own_weights, shared_weights, tuning_problem, unfreeze
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.layers import AdditiveAttention, masked_mean

_BUCKET = 4  # tokens; texts whose lengths round up to the same multiple run together
_BUCKETS = 16  # at most about so many; long texts get wider buckets


class LlmConfig(PartConfig):
    """Settings of `llm`. Negative splits count from the top: -1 leaves one layer to train."""

    model: str = "minilm"
    split: int = -1
    tune: Tune | None = Field(
        None,
        description="lora: adapters; full: the upper layers' own weights; head: neither; lora "
        "where it is not given, or head with `lora: null`",
    )
    lora: LoraSettings | None = LoraSettings()  # of `tune: lora`
    precision: Precision = "float32"
    pooling: Literal["mean", "cls", "last", "attention"] = "mean"
    attention_size: Positive = 128  # of `pooling: attention`
    template: str | None = Field(None, description="all default text attributes where null")
    length: Annotated[int, Field(ge=3)] = 32
    store: Literal["bfloat16", "float32"] = "bfloat16"

    @field_validator("lora")
    @classmethod
    def _lora_is_of_tune_lora(
        cls, lora: LoraSettings | None, info: ValidationInfo
    ) -> LoraSettings | None:
        """So that `tune` can be searched beside the adapters' settings: others have no adapters."""
        tune = info.data.get("tune")
        if tune == "lora" and lora is None:
            raise ValueError("tune: lora trains adapters: leave `lora` out, or take tune: head")
        return None if tune in ("full", "head") else lora


class LlmOperator(ContentOperator):
    """Layers N to L of a language model of L layers; the states after N layers are its input.

    The language model's own weights are frozen and lie in memory once for all operators; the layers
    around them and the adapters belong to this operator alone, so that nothing can leak from one
    trial to the next. With `tune: full` the operator has its own copy of the weights of layers N to
    L and of the final norm, and trains it. The embeddings and the layers below N are frozen always,
    their states being stored. At `N = L` nothing is left but the head.
    """

    Config: ClassVar[type[PartConfig]] = LlmConfig
    paper: ClassVar[str] = "Liu et al.: ONCE (arXiv 2305.06566); Hu et al.: LoRA (2106.09685)"

    def __init__(self, config: LlmConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        base = load_base(config.model, config.precision)
        self.first = _absolute(config, base.layers)
        self.count = base.layers - self.first
        self.dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
        self.pooling = config.pooling
        self.full = config.tune == "full"
        self.upper: nn.Module | None = None
        if self.count:
            view = upper_view(base.model, base.layers, self.first)
            self.upper = copy.deepcopy(view) if self.full else shared_copy(view)
            if self.full:
                unfreeze(self.upper, shared_weights(base.model, base.layers, self.first))
            elif config.lora is not None:
                add_lora(layers_of(self.upper, self.count), config.lora)
                cast_adapters(layers_of(self.upper, self.count))
        # a head that reads one token: the rest of the last layer need not be computed
        self.one_query: OneQuery | None = None
        if self.upper is not None and config.pooling in ("cls", "last"):
            self.one_query = plan(self.upper, self.count)
        size = base.output_size
        self.pool: nn.Module | None = None
        if config.pooling == "attention":
            self.pool = AdditiveAttention(size, config.attention_size)
        self.project = nn.Linear(size, shape.hidden_size)
        self.train()

    @classmethod
    def recipe(cls, config: LlmConfig, text: tuple[str, ...]) -> StateRecipe:
        """The states after the lower layers; by default of all of the data set's text attributes.

        Raises:
            InputError: the language model is missing, or has not as many layers.
        """
        if config.template is None and not text:
            raise InputError(Problem("template", "the data set names no text", "give a template"))
        known = facts(config.model)
        return StateRecipe(
            model=config.model,
            split=_absolute(config, known.layers, known.lowest_split),
            template=config.template or default_template(text),
            length=config.length,
            precision=config.precision,
            store_dtype=config.store,
        )

    @classmethod
    def problems(cls, config: LlmConfig, hidden_size: int) -> list[str]:
        """What is wrong with the settings for this language model; reads its `config.json`."""
        relative = folder_problem(config.model)
        found = [relative] if relative else []
        try:
            known = facts(config.model)
            trained = known.layers - _absolute(config, known.layers, known.lowest_split)
            if config.lora is not None and trained:
                resolve_targets(projections_of_family(config.model), config.lora.targets)
                if (config.lora.layers or 0) > trained:
                    found.append(f"lora.layers {config.lora.layers}: {trained} are trained")
        except InputError as error:
            return found + [str(problem) for problem in error.problems]
        except ValueError as error:
            found.append(str(error))
        if config.lora is not None and config.lora.dora and config.precision == "int8":
            found.append("lora.dora does not work on int8 weights: take nf4, bfloat16 or float32")
        lacking = precision_problem(config.precision)
        found += [lacking] if lacking else []
        frozen = tuning_problem(config.tune, config.precision)
        found += [frozen] if frozen else []
        blind = known.pooling_problem(config.pooling)
        found += [blind] if blind else []
        if known.positions is not None and config.length > known.positions:
            found.append(f"length {config.length}: {config.model} reads {known.positions} tokens")
        try:
            template_pieces(config.template if config.template is not None else "{title}")
        except ValueError as error:
            found.append(str(error))
        return found

    def forward(self, inputs: States) -> Tensor:
        """`W pool(layers(h)) + b`: the upper layers, then the head, over N items' states.

        Args:
            inputs: `hidden [N, T, H]`, padded on the right, and `mask [N, T]`.

        Returns:
            `[N, D]` in float32 (outside of autocast).
        """
        # a text without any token would leave nothing to attend to
        lengths = inputs.mask.sum(dim=1).clamp(min=1)
        mask = torch.arange(inputs.mask.shape[1], device=lengths.device) < lengths[:, None]
        if self.upper is None or len(lengths) == 0:
            return self.project(self._pooled(inputs.hidden.float(), mask, lengths))
        order = torch.argsort(lengths, stable=True)
        pooled = [
            self._encode(
                inputs.hidden[rows, :width], None if whole else mask[rows, :width], lengths[rows]
            )
            for rows, width, whole in _buckets(lengths, order)
        ]
        return self.project(torch.cat(pooled)[torch.argsort(order)])

    def _encode(self, hidden: Tensor, mask: Tensor | None, lengths: Tensor) -> Tensor:
        """The upper layers and the pooling over one bucket, `[n, T, H]` to `[n, H]`.

        There is no mask where all texts are T long: attention may then take its faster kernels.
        """
        assert self.upper is not None
        hidden = hidden.to(self.dtype)
        with computing(hidden, cast=self.full):
            if self.one_query is not None:
                at = torch.zeros_like(lengths) if self.pooling == "cls" else lengths - 1
                return self.one_query(self.upper, hidden, mask, at).float()
            states = run_view(self.upper, hidden, mask).float()
        mask = states.new_ones(states.shape[:2], dtype=torch.bool) if mask is None else mask
        return self._pooled(states, mask, lengths)

    def _pooled(self, hidden: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """`[n, H]` of `[n, T, H]`."""
        if self.pool is not None:
            return self.pool(hidden, mask)
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "last":
            return hidden[torch.arange(len(lengths), device=lengths.device), lengths - 1]
        return masked_mean(hidden, mask)

    def train(self, mode: bool = True) -> LlmOperator:
        """As every module's, and the quantized layers stay on their one path."""
        super().train(mode)
        settle_quantized(self)
        return self

    def encoder_parameters(self) -> list[nn.Parameter]:
        """What is trained of the language model, which may have a learning rate of its own."""
        return [p for p in self._encoder().values() if isinstance(p, nn.Parameter)]

    def saved_state(self) -> dict[str, Tensor]:
        """All that is trained: the head, and adapters or weights under the whole model's names."""
        return {name: tensor.detach() for name, tensor in self._trained().items()}

    def load_saved_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `saved_state` gave.

        Raises:
            ValueError: names or shapes are not this operator's.
        """
        copy_into(self._trained(), state)

    def _encoder(self) -> dict[str, Tensor]:
        if self.upper is None:
            return {}
        if self.full:
            own = own_weights(self.upper, self.count, self.first)
            return {f"model.{name}": parameter for name, parameter in own.items()}
        return adapters(layers_of(self.upper, self.count), self.first)

    def _trained(self) -> dict[str, Tensor]:
        heads = {"project": self.project, "pool": self.pool}
        own: dict[str, Tensor] = {
            f"{head}.{name}": parameter
            for head, module in heads.items()
            if module is not None
            for name, parameter in module.named_parameters()
        }
        return own | self._encoder()


def _absolute(config: LlmConfig, layers: int, lowest: int = 0) -> int:
    """The split counted from the bottom.

    Raises:
        InputError: the model has not as many layers.
    """
    split = config.split + layers if config.split < 0 else config.split
    if not lowest <= split <= layers:
        raise InputError(
            Problem(
                "",
                f"split {config.split} is out of range: {config.model} has {layers} layers",
                f"{lowest} to {layers}, or {lowest - layers} to -1 counted from the top",
            )
        )
    return split


def _buckets(lengths: Tensor, order: Tensor) -> list[tuple[Tensor, int, bool]]:
    """Rows of about the same length, the width of each bucket, whether all in it are that long."""
    ordered = lengths[order]
    step = torch.clamp(ordered[-1] // _BUCKETS, min=_BUCKET)
    _, counts = torch.unique_consecutive((ordered + step - 1) // step, return_counts=True)
    ends = torch.cumsum(counts, 0)
    shortest, longest = ordered[ends - counts], ordered[ends - 1]
    # all numbers at once: each look at one makes the host wait for the device
    told: list[list[int]] = torch.stack([counts, longest, shortest]).tolist()
    groups = order.split(told[0])
    return [
        (rows, most, least == most) for rows, most, least in zip(groups, *told[1:], strict=True)
    ]
