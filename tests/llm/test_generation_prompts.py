"""Prompt files, strict; and what is kept of answers."""

from __future__ import annotations

import pytest

from legoray.errors import InputError
from legoray.llm.generation.cleaning import clean
from legoray.llm.generation.prompt import PromptConfig, prompt_lines, prompt_names, read_prompt

REFUSED = [
    "I'm sorry, but I can't summarize this.",
    "I’m sorry, I need more text.",
    "Sorry, there is no text.",
    "Unfortunately, I know nothing of it.",
    "As an AI language model, I do not read news.",
    "I cannot write about this.",
    "I am not able to do that.",
    "Summary: I'm unable to help.",
    "Please provide the text of the article.",
]


@pytest.mark.parametrize("name", ["category", "keywords", "profile", "summary", "title"])
def test_the_prompts_that_come_along(name):
    assert name in prompt_names()
    prompt = read_prompt(name)
    assert prompt.name == name
    assert prompt.of == ("users" if name == "profile" else "items")
    assert ("history" if name == "profile" else "text") in prompt.names()
    for answer in REFUSED:
        if not answer.startswith("Summary") or name == "summary":
            assert clean(answer, prompt).status == "refused", answer
    assert clean("", prompt).status == clean(" \n ...\n", prompt).status == "empty"
    assert any(line.startswith(name) for line in prompt_lines())


SUMMARY, TITLE = read_prompt("summary"), read_prompt("title")
KEYWORDS, CATEGORY = read_prompt("keywords"), read_prompt("category")


@pytest.mark.parametrize(
    ("prompt", "answer", "cut", "text"),
    [
        (
            SUMMARY,
            "Rain floods the town.\n\nMany leave it.",
            False,
            "Rain floods the town. Many leave it.",
        ),
        (SUMMARY, "Rain floods the town. Many lea", True, "Rain floods the town."),
        (SUMMARY, "Rain floods the to", True, "Rain floods the to"),
        (SUMMARY, "Sure! Here is a summary:\nRain falls.", False, "Rain falls."),
        (SUMMARY, "**Summary:** Rain falls.", False, "Rain falls."),
        (SUMMARY, "<think>Hm. What now?</think>Rain falls.", False, "Rain falls."),
        (SUMMARY, "Mayor: 'I'm sorry' for the flood", False, "Mayor: 'I'm sorry' for the flood"),
        (
            TITLE,
            '"Rain floods the harbour"\nThis title is clearer.',
            False,
            "Rain floods the harbour",
        ),
        (TITLE, "Title: “Rain”", False, "Rain"),
        (TITLE, "Sorry tale of a lost choir", False, "Sorry tale of a lost choir"),
        (TITLE, "Rain: the harbour floods", False, "Rain: the harbour floods"),
        (TITLE, '"Rain" is "here"', False, '"Rain" is "here"'),
        (KEYWORDS, "1. rain\n2. harbour\n3. Rain\n- flood.", False, "rain, harbour, flood"),
        (KEYWORDS, "rain; harbour, flo", True, "rain, harbour"),
        (KEYWORDS, "a, b, c, d, e, f, g, h", False, "a, b, c, d, e, f"),
        (CATEGORY, "Sports.", False, "sports"),
        (CATEGORY, "The category is **weather**, I think.", False, "weather"),
        (CATEGORY, "Category: crime", True, "crime"),
    ],
)
def test_what_is_kept_of_an_answer(prompt, answer, cut, text):
    found = clean(answer, prompt, cut=cut)
    assert (found.text, found.status) == (text, "written")


@pytest.mark.parametrize("answer", ["sports or crime", "gardening", "transports"])
def test_an_answer_that_names_no_single_choice_is_none(answer):
    assert clean(answer, CATEGORY).status == "empty"


@pytest.mark.parametrize("answer", ["1. 1. 1. 2. 3.", 'Rewrite: "' * 6 + "Rew", "* * *"])
def test_an_answer_that_says_nothing_is_none(answer):
    assert clean(answer, SUMMARY).status == clean(answer, KEYWORDS).status == "empty"


def test_characters_that_cannot_be_shown_are_left_out():
    assert clean("Rain\x00 fal\udc80ls\x1b[1m", TITLE).text == "Rain falls[1m"


MISTAKES = """\
name: mine
attribute: my summary
of: item
user: "Sum up {title"
max_new_token: 3
answer:
  form: choice
  choices: [a]
refusals: ["("]
"""


def test_all_mistakes_of_a_file_come_at_once(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(MISTAKES)
    with pytest.raises(InputError) as caught:
        read_prompt(str(path))
    told = [str(problem) for problem in caught.value.problems]
    for line, word in (
        (2, "attribute"),
        (3, "did you mean 'items'"),
        (4, "not well formed"),
        (5, "max_new_tokens"),
        (6, "two different choices"),
        (9, "regular expression"),
    ):
        assert sum(f"mine.yaml:{line}" in text and word in text for text in told) == 1, (line, told)
    assert len(told) == 6


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"user": "{history}"}, "of: users"),
        ({"user": "{text}", "of": "users"}, "users have"),
        ({"user": "{choices} {text}"}, "choices is empty"),
        ({"user": "no name"}, "names no attribute"),
        ({"user": "{title}", "answer": {"choices": ["a"]}}, "choices are for"),
    ],
)
def test_names_in_the_wrong_place(changes, told):
    with pytest.raises(ValueError, match=told):
        PromptConfig(**{"name": "n", "attribute": "a", **changes})


def test_unknown_prompts_name_the_nearest(tmp_path):
    with pytest.raises(InputError, match="did you mean 'summary'"):
        read_prompt("sumary")
    with pytest.raises(InputError, match=r"x\.yaml: no such file"):
        read_prompt(str(tmp_path / "x.yaml"))
