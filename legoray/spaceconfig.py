"""The types of `search_spaces/*.yaml`: what is searched, how, and what becomes of it."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from legoray.config import EvaluateConfig, Name, Positive, Strict


class SchedulerConfig(Strict):
    """Which trials go on: `asha` stops those that fall behind at the same epoch."""

    name: Literal["asha", "hyperband", "median", "none"] = "asha"
    grace_epochs: Positive = Field(1, description="epochs that no trial is stopped before")
    reduction: Annotated[int, Field(ge=2)] = Field(
        3, description="asha, hyperband: one of so many goes on at each rung"
    )
    brackets: Positive = Field(3, description="hyperband: groups with different grace periods")
    min_trials: Positive = Field(
        3, description="median: trials that a median is taken of, at least"
    )

    @model_validator(mode="after")
    def _own_settings(self) -> SchedulerConfig:
        _refuse_strangers(self, SCHEDULER_SETTINGS, "scheduler")
        return self


SCHEDULER_SETTINGS: dict[str, tuple[str, ...]] = {
    "asha": ("grace_epochs", "reduction"),
    "hyperband": ("grace_epochs", "reduction", "brackets"),
    "median": ("grace_epochs", "min_trials"),
    "none": (),
}


class SamplerConfig(Strict):
    """Who proposes the next configuration."""

    name: Literal["tpe", "parts", "random", "grid", "gp", "nsga2", "nsga3", "cmaes"] = Field(
        "tpe", description="`grid`: every configuration of a space that has an end"
    )
    startup_trials: Positive = Field(
        8, description="tpe, parts, gp, cmaes: trials drawn at random before there is a model"
    )
    candidates: Positive | None = Field(
        None, description="tpe, parts: draws of which the most promising is taken; null: 24, 300"
    )
    population: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="nsga2, nsga3, cmaes: trials of a generation; null: 10, cmaes 4 + 3 ln(values)",
    )
    mutation: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="nsga2, nsga3: chance that a value is drawn anew; null: 1 / values"
    )
    crossover: Annotated[float, Field(ge=0, le=1)] = Field(
        0.9, description="nsga2, nsga3: chance that a trial has two parents and not one"
    )
    divisions: Positive = Field(
        3, description="nsga3: parts that each objective's axis is cut into"
    )
    sigma: Annotated[float, Field(gt=0, le=1)] = Field(
        0.3, description="cmaes: first step, as a share of each range"
    )
    rest: Literal["tpe", "random"] = Field(
        "tpe", description="gp, cmaes: who draws the values that they cannot model"
    )

    @model_validator(mode="after")
    def _own_settings(self) -> SamplerConfig:
        _refuse_strangers(self, SAMPLER_SETTINGS, "sampler")
        return self


SAMPLER_SETTINGS: dict[str, tuple[str, ...]] = {
    "tpe": ("startup_trials", "candidates"),
    "parts": ("startup_trials", "candidates"),
    "random": (),
    "grid": (),
    "gp": ("startup_trials", "rest"),
    "nsga2": ("population", "mutation", "crossover"),
    "nsga3": ("population", "mutation", "crossover", "divisions"),
    "cmaes": ("startup_trials", "population", "sigma", "rest"),
}


def _refuse_strangers(
    config: SchedulerConfig | SamplerConfig, known: dict[str, tuple[str, ...]], kind: str
) -> None:
    """Refuse a setting that another one of its kind has and the named one has not."""
    for name in sorted(config.model_fields_set - {"name"} - set(known[config.name])):
        owners = [owner for owner, names in known.items() if name in names]
        told = f"{kind}{'s' if len(owners) > 1 else ''} {', '.join(owners)}"
        raise ValueError(f"`{name}` is a setting of the {told}, not of {config.name}")


class ObjectiveConfig(Strict):
    """One of several objectives: `auc`, or `{name: latency, limit: 5}`."""

    name: str = Field(
        description="a metric of `evaluate.metrics`, or latency, parameters, trainable, "
        "train_seconds, memory"
    )
    limit: float | None = Field(
        None, description="a model that is worse than this stays out of the Pareto front"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_a_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [{"type": "string"}, {**schema}], "title": "Objective"}


class SearchConfig(Strict):
    """The search's own settings. None of these may be searched."""

    trials: Positive | None = Field(
        None, description="in all; 20 where neither epochs nor hours are given, else any number"
    )
    epochs: Positive | None = Field(None, description="that all trials together are trained for")
    hours: Annotated[float, Field(gt=0)] | None = Field(
        None, description="of searching, earlier processes included; nothing begins after them"
    )
    objectives: list[ObjectiveConfig] = Field(
        default_factory=list,
        description="what counts, the metric that selects first; that metric alone if empty",
    )
    sampler: SamplerConfig = SamplerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    trainer: Literal["warm", "per_trial", "local"] = "warm"
    concurrent: Positive | None = Field(None, description="trials at once; as many as fit if null")
    workers: Positive = Field(1, description="TorchTrainer workers of one trial (DDP)")
    cpus_per_worker: Positive = 1
    gpus_per_worker: Annotated[float, Field(ge=0)] = Field(
        0.0, description="a share of one GPU, such as 0.5, or a whole number"
    )
    start_with: list[dict[str, Any]] = Field(
        default_factory=list, description="full or partial settings to try first"
    )
    start_from: list[str] = Field(
        default_factory=list, description="presets to try first, after `start_with`"
    )
    reuse: bool = Field(
        True, description="take results of equal trainings from the zoo instead of training again"
    )
    warm_start: bool = Field(
        False, description="let the sampler know what earlier sweeps found before it begins"
    )

    @field_validator("gpus_per_worker")
    @classmethod
    def _share_or_whole(cls, value: float) -> float:
        if value > 1 and not value.is_integer():
            raise ValueError("more than one GPU must be a whole number; a share is below 1")
        return value

    @property
    def trial_limit(self) -> int | None:
        """How many trials there may be; None where only epochs or hours end the search."""
        alone = self.epochs is None and self.hours is None
        return 20 if self.trials is None and alone else self.trials


class FinalConfig(Strict):
    """After the search: the best `top` models retrained on `seeds` seeds and tested once."""

    top: Annotated[int, Field(ge=0)] = 1
    each: Literal["all", "content", "preset"] = Field(
        "all", description="the best `top` of all trials, or of each content operator or preset"
    )
    seeds: Positive = 3
    baselines: list[Literal["random", "popularity"]] = Field(
        default_factory=lambda: ["random", "popularity"]  # type: ignore[arg-type]
    )


class TrackingConfig(Strict):
    """Where MLflow keeps the zoo. The default is what a plain `mlflow ui` opens here."""

    uri: str = Field(
        default_factory=lambda: os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db",
        description="$MLFLOW_TRACKING_URI, else a file here",
    )
    experiment: str | None = Field(None, description="the search's name where it is not given")
    register_as: str | None = Field(None, description="name in the registry; the search's if null")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


OneOrMore = Annotated[
    list[str],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class SpaceConfig(Strict):
    """`search_spaces/*.yaml`. `model` and `train` are trees; any leaf of them may be searched."""

    name: Name
    description: str = ""
    data: OneOrMore = Field(
        min_length=1,
        description="a datasets/*.yaml, or a list of them that are searched one after another; "
        "relative to this file or the folder above it",
    )
    seed: Annotated[int, Field(ge=0)] = 1
    model: dict[str, Any]
    train: dict[str, Any] = Field(default_factory=dict)
    where: OneOrMore = Field(
        default_factory=list,
        description="what all configurations fulfil, as `behavior.heads divides hidden_size`",
    )
    evaluate: EvaluateConfig = EvaluateConfig()
    search: SearchConfig = SearchConfig()
    final: FinalConfig = FinalConfig()
    tracking: TrackingConfig = TrackingConfig()
