"""What is asked of a language model: one YAML file per prompt, strict.

A prompt names the attribute that it writes, whose it is (items' or users'), the texts of the
question, and how an answer becomes a text. Attributes of the items (or users) stand in braces as in
`legoray.llm.text`. Besides them there are

    {text}      the data set's text attributes, one per line (prompts of items)
    {history}   what a user read, one item per line (prompts of users)
    {choices}   the allowed answers, joined by commas
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from legoray.config import Attribute, Name, Positive, Strict, build
from legoray.errors import InputError, Problem, unknown
from legoray.llm.text import template_attributes
from legoray.yamlfile import read_yaml

PLACES = ("text", "history", "choices")
_FOLDER = Path(__file__).with_name("prompts")


class AnswerConfig(Strict):
    """How an answer becomes a text."""

    form: Literal["text", "line", "list", "choice"] = "text"
    labels: list[str] = Field(
        default_factory=list, description="words before a colon that an answer may begin with"
    )
    most: Positive = Field(10, description="entries of a list that are kept")
    choices: list[str] = Field(default_factory=list, description="what a `choice` may be")

    @model_validator(mode="after")
    def _choices_where_they_count(self) -> AnswerConfig:
        if self.form == "choice" and len(set(map(str.casefold, self.choices))) < 2:
            raise ValueError("the form 'choice' needs two different choices at least")
        if self.form != "choice" and self.choices:
            raise ValueError(f"choices are for the form 'choice', not for '{self.form}'")
        return self


class HistoryConfig(Strict):
    """How a user's history is written into a prompt."""

    most: Positive = Field(15, description="the newest items, this many")
    item: str = Field("", description="template of an item; the first text attribute if absent")

    @field_validator("item")
    @classmethod
    def _well_formed(cls, item: str) -> str:
        if item:
            template_attributes(item)
        return item


class PromptConfig(Strict):
    """One prompt file."""

    name: Name
    attribute: Attribute = Field(
        description="the name of what is written, where the command gives none"
    )
    of: Literal["items", "users"] = "items"
    system: str = ""
    user: str
    history: HistoryConfig = HistoryConfig()
    max_new_tokens: Annotated[int, Field(gt=0, le=4096)] = 64
    answer: AnswerConfig = AnswerConfig()
    refusals: list[str] = Field(
        default_factory=list, description="regular expressions; found in an answer: refused"
    )

    @field_validator("refusals")
    @classmethod
    def _expressions(cls, refusals: list[str]) -> list[str]:
        for pattern in refusals:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is no regular expression: {error}") from None
        return refusals

    @field_validator("user", "system")
    @classmethod
    def _templates(cls, template: str, info: object) -> str:
        if template and ("{" in template or getattr(info, "field_name", "") == "user"):
            template_attributes(template)
        return template

    @model_validator(mode="after")
    def _places(self) -> PromptConfig:
        names = self.names()
        if self.of == "items" and "history" in names:
            raise ValueError("{history} is for prompts of users: set `of: users`")
        if self.of == "users" and "text" in names:
            raise ValueError("{text} is for prompts of items; users have {history}")
        if "choices" in names and not self.answer.choices:
            raise ValueError("{choices} is used, but answer.choices is empty")
        return self

    def names(self) -> list[str]:
        """What stands in braces in the system text and the user text."""
        found = [name for text in self.texts() if "{" in text for name in template_attributes(text)]
        return list(dict.fromkeys(found))

    def texts(self) -> tuple[str, str]:
        """The templates of the system text and the user text."""
        return self.system, self.user


def prompt_names() -> list[str]:
    """The prompts that come with LegoRay."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def prompt_lines() -> list[str]:
    """One line on each prompt that comes with LegoRay."""
    prompts = [read_prompt(name) for name in prompt_names()]
    return [f"{one.name:<10} writes {one.attribute} of the {one.of}" for one in prompts]


def read_prompt(name: str) -> PromptConfig:
    """A prompt by its name, or from a file of one's own by its path.

    Raises:
        InputError: there is no such prompt or file, or every mistake in it.
    """
    if "/" not in name and not name.endswith((".yaml", ".yml")):
        if name not in prompt_names():
            problem = unknown("prompt", name, prompt_names())
            hint = f"{problem.hint}; a file of your own is named by its path, such as my.yaml"
            raise InputError(Problem(problem.where, problem.message, hint))
        name = str(_FOLDER / f"{name}.yaml")
    document = read_yaml(name)
    return build(PromptConfig, document.data, document)
