"""The YAML's types, strict: an unknown key, a wrong type or a NaN is a mistake, never a default.

All mistakes of a file are reported at once, each with its line and path in the file, and with the
nearest valid name. What a part accepts is not here but beside the part (`legoray.model`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from legoray.errors import InputError, Problem, nearest
from legoray.rayjob import check_home, in_copy
from legoray.storage.address import place
from legoray.yamlfile import Document, Keys, dotted, read_yaml


class Strict(BaseModel):
    """Base of every typed configuration: immutable, no unknown keys, no coercion, no NaN."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True
    )


class OrWord:
    """Says in a JSON schema that a word may stand for a mapping; a validator reads it."""

    def __init__(self, *words: str) -> None:
        self.words = list(words)  # any word, if there are none

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        word: dict[str, Any] = {"enum": self.words} if self.words else {"type": "string"}
        return {"anyOf": [word, handler(core_schema)]}


Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]


Attribute = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=80)]


class FileForm(Strict):
    """How a file of a table is written, where its ending does not say so."""

    format: Literal["csv", "jsonl", "parquet"] | None = Field(
        None, description="by the file's ending where it is not given"
    )
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        None, description='between the columns of CSV, such as "\t"; by the ending if not given'
    )

    def is_text(self, file: str) -> bool:
        """Whether a file of this form and name holds plain text."""
        told = self.format or ("csv" if self.separator else None)
        return told != "parquet" if told else not file.lower().endswith(".parquet")


class WrittenSource(FileForm):
    """Attributes that were written later: in a file keyed by item or user, or by `augment`."""

    file: str | None = Field(None, description="CSV, TSV, JSON lines or Parquet; below `path`")
    name: Attribute | None = Field(None, description="an attribute that `legoray augment` wrote")
    of: Literal["items", "users"] = "items"
    key: str | None = Field(None, description="the column of the file with the items' keys")
    columns: dict[str, Attribute] | list[Attribute] = Field(
        default_factory=list, description="column of the file -> attribute, or columns alone"
    )
    missing: Literal["fail", "empty"] = Field(
        "fail", description="what becomes of items that have no text"
    )

    @model_validator(mode="after")
    def _file_or_name(self) -> WrittenSource:
        if (self.file is None) == (self.name is None):
            raise ValueError("needs either `file` or `name`")
        if self.file is not None and (self.key is None or not self.columns):
            raise ValueError("a file needs `key` and `columns`, such as {key: id, columns: [text]}")
        if len(self.named()) < len(self.columns):
            raise ValueError("`columns` names an attribute twice")
        of_file = {"key", "columns", "separator", "format"} & self.model_fields_set
        if self.name is not None and of_file:
            raise ValueError(f"`{min(of_file)}` belongs to a `file`, not to a `name`")
        return self

    def named(self) -> dict[str, str]:
        """Attribute -> column of the file."""
        if isinstance(self.columns, list):
            return {name: name for name in self.columns}
        return {name: column for column, name in self.columns.items()}


class DatasetConfig(Strict):
    """`datasets/*.yaml`: where a data set lies, how it is read, and how to get it."""

    name: Name
    title: str = ""
    synthetic: bool = False
    licence: str = ""
    citation: str = ""
    url: str = ""
    published: dict[str, Count] = Field(
        default_factory=dict, description="counts that the owners publish: items, events, users"
    )
    size: str = Field("", description="of what is downloaded, as its owners or its files tell it")
    get: str = Field("", description="what to do to get the files; shown when they are missing")
    path: str = Field(description="folder of the raw files; $VARIABLES allowed; relative to here")
    processor: str
    options: dict[str, Any] = Field(default_factory=dict)
    text: list[str] = Field(
        default_factory=list, description="attributes that text operators read by default"
    )
    attributes: list[WrittenSource] = Field(
        default_factory=list, description="texts written elsewhere or by `legoray augment`"
    )
    group: Literal["impression", "user"] = "impression"
    on_bad_row: Literal["fail", "skip"] = "fail"
    max_history: Positive = Field(100, description="longest history that any model may read")


class TrainConfig(Strict):
    """How one model is trained. Every leaf may be searched."""

    task: Literal["matching", "ranking"] = "matching"
    loss: Literal["auto", "cross-entropy", "binary", "squared"] = "auto"
    epochs: Positive = 5
    batch_size: Positive = 64
    negatives: Positive = 4
    max_history: Positive = 50
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    encoder_learning_rate: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="for what is trained of the language model; learning_rate where absent",
    )
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None = 5.0
    patience: Positive = Field(2, description="epochs without improvement before stopping early")
    accumulate: Positive = Field(1, description="micro-batches per step; memory against time")
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False


class EvaluateConfig(Strict):
    """What is measured, and which metric selects."""

    metrics: list[str] = Field(
        default_factory=lambda: ["auc", "mrr", "mrr_first", "ndcg@5", "ndcg@10"], min_length=1
    )
    select: str = "auc"
    group: Literal["impression", "user"] | None = Field(
        None, description="grouping key of the metrics; the data set's own where it is not given"
    )


class ModelConfig(Strict):
    """One composition: each part is `{name: <part>, ...its own settings}`."""

    preset: str = Field("", description="name of the model that this one was made from, if any")
    hidden_size: Positive = 64
    content: dict[str, Any]
    behavior: dict[str, Any]
    predictor: dict[str, Any]

    @model_serializer(mode="wrap")
    def _without_an_empty_name(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = dump(self)
        return {key: value for key, value in data.items() if key != "preset" or value}

    def composition(self) -> str:
        """Its parts, such as `cnn+attention+dot`; a part of one's own goes by its class alone."""
        names = [str(part["name"]) for part in (self.content, self.behavior, self.predictor)]
        return "+".join(name.rpartition(":")[2] for name in names)

    def label(self) -> str:
        """Its readable name: `cnn+attention+dot`, or `nrms (attention+attention+dot)`."""
        return f"{self.preset} ({self.composition()})" if self.preset else self.composition()


class TrialConfig(Strict):
    """Everything that decides the outcome of one training: same config and data, same numbers."""

    model: ModelConfig
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    seed: Annotated[int, Field(ge=0)] = 1


C = TypeVar("C", bound=BaseModel)


def build(cls: type[C], data: Any, document: Document | None = None, at: Keys = ()) -> C:
    """Validate `data` as `cls`; on failure raise one InputError that names every mistake."""
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise InputError(*problems_of(error, cls, document, at)) from None


def problems_of(
    error: ValidationError, cls: type[BaseModel], document: Document | None = None, at: Keys = ()
) -> list[Problem]:
    """Pydantic's complaints as problems with file, line, path, value and nearest name."""
    return [_problem(detail, cls, document, at) for detail in error.errors(include_url=False)]


def _problem(detail: Any, cls: type[BaseModel], document: Document | None, at: Keys) -> Problem:
    keys: Keys = (*at, *_real_keys(detail["loc"], document, at))
    where = document.where(keys) if document else dotted(keys)
    kind, value = detail["type"], detail.get("input")
    if kind == "extra_forbidden":
        options = list(_fields_at(cls, detail["loc"][:-1]))
        close = nearest(detail["loc"][-1], options)
        known = f"known keys: {', '.join(sorted(options))}" if options else "it has no settings"
        hint = f"did you mean '{close}'?" if close else known
        return Problem(where, f"unknown key '{detail['loc'][-1]}'", hint)
    if kind == "missing":
        return Problem(where, f"the key '{detail['loc'][-1]}' is missing")
    if kind == "literal_error":
        expected = str(detail["ctx"]["expected"])
        close = nearest(value, re.findall(r"'([^']*)'", expected))
        hint = f"did you mean '{close}'?" if close else ""
        return Problem(where, f"is {value!r}, expected {expected}", hint)
    if kind in ("model_type", "dict_type"):
        return Problem(where, f"is {value!r}, a mapping of keys was expected")
    message = str(detail["msg"]).removeprefix("Value error, ")
    return Problem(where, f"is {value!r}: {message[0].lower()}{message[1:]}")


def _real_keys(loc: tuple[Any, ...], document: Document | None, at: Keys) -> Keys:
    """Pydantic's location without the union branches that it slips in."""
    branch = re.compile(r"[\[(]|^constrained-")
    return tuple(key for key in loc if not (isinstance(key, str) and branch.search(key)))


def _fields_at(cls: type[BaseModel], loc: tuple[Any, ...]) -> Iterator[str]:
    """Names of the fields of the model that a location leads to."""
    current: Any = cls
    for key in loc:
        field = getattr(current, "model_fields", {}).get(key)
        if field is None:
            continue
        choices = [c for c in get_args(field.annotation) if hasattr(c, "model_fields")]
        current = choices[0] if choices else field.annotation  # `Settings | None` is Settings
    yield from getattr(current, "model_fields", {})


def expand(path: str, base: Path, where: str, *, make_absolute: bool = True) -> Path:
    """A path from YAML with `$VARIABLES` and `~` filled in, relative to the file it stands in.

    Raises:
        InputError: a variable is not set.
    """
    filled = os.path.expanduser(os.path.expandvars(path))
    missing = re.search(r"\$\{?(\w+)\}?", filled)
    if missing:
        raise InputError(
            Problem(
                where,
                f"path '{path}' needs the environment variable {missing.group(1)}",
                f"set it, for example: export {missing.group(1)}=/folder/of/the/files",
            )
        )
    found = Path(filled)
    return (base / found).resolve() if make_absolute and not found.is_absolute() else found


def read_dataset(path: str | os.PathLike[str]) -> tuple[DatasetConfig, Document]:
    """Read a `datasets/*.yaml`; its raw files are not looked at."""
    document = read_yaml(path)
    return build(DatasetConfig, document.data, document), document


def home() -> Path:
    """Where prepared tables, hidden states and other caches lie: $LEGORAY_HOME or ./.legoray.

    On a cluster this must be storage that every node sees: a path, or an address such as
    `s3://bucket/prefix`, of which this is the node's mirror.

    Raises:
        InputError: it is not set in a Ray job, whose folder does not last; it is no address.
    """
    check_home()
    return place(os.environ.get("LEGORAY_HOME") or ".legoray", "LEGORAY_HOME")


def lasting() -> Path:
    """Below which results lie that have no place of their own: here, or home in a Ray job.

    Raises:
        InputError: as `home`.
    """
    return home() if in_copy() else Path.cwd()
