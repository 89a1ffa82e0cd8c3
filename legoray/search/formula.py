"""Formulas over a configuration's values: what `where`, `case` and the ends of ranges may say.

    not (content.name == "llm" and behavior.name == "gru")
    behavior.heads divides hidden_size
    64 <= train.batch_size * train.accumulate <= 512
    content.kernel_size in [3, 5]
    min(content.layers, 2) + 1

Loosest first: `or`, `and`, `not`, comparisons (`== != < <= > >= in`, `not in`, `divides`), `+ -`,
`* / // %`, the sign, `**`; then numbers, words in quotes, `true false null`, lists, the functions
`min max abs len`, and paths of settings. Nothing else is read, and no text is ever executed.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

Path = tuple[str | int, ...]
Look = Callable[[Path], Any]

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
    | (?P<text>"[^"]*"|'[^']*')
    | (?P<path>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[\d+\])*)
    | (?P<sign><=|>=|==|!=|\*\*|//|[-+*/%<>()\[\],])
    )""",
    re.VERBOSE,
)
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_KEYWORDS = ("and", "or", "not", "in", "divides", *_WORDS)
_FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "abs": abs, "len": len}
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_COMPARES = ("==", "!=", *_ORDER, "in", "divides")
_SUMS = {"+": operator.add, "-": operator.sub}
_PRODUCTS = {
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
_MEANT = {"=": "==", "&&": "and", "||": "or", "!": "not", "&": "and", "|": "or", "^": "**"}


class FormulaError(Exception):
    """What is wrong with a formula; `at` is the position of the character, from 1."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


class AbsentError(Exception):
    """A formula names a setting that this configuration does not have."""

    def __init__(self, path: Path) -> None:
        super().__init__(text_of_path(path))
        self.path = path


@dataclass(frozen=True)
class Term:
    """A part of a formula: an operator with its operands, or a leaf with a value."""

    kind: str  # value | path | list | call | not | sign | and | or | compare | binary
    at: int
    value: Any = None  # of a leaf; the operator's or function's name of the others
    terms: tuple[Term, ...] = ()


@dataclass(frozen=True)
class Formula:
    """A formula that was read; equal texts are equal formulas."""

    text: str
    root: Term

    @property
    def paths(self) -> list[tuple[Path, int]]:
        """The settings that it names, and where in the text they stand."""
        return list(dict.fromkeys((t.value, t.at) for t in _walk(self.root) if t.kind == "path"))

    @property
    def path(self) -> Path | None:
        """The setting that it is, where it is nothing else."""
        return self.root.value if self.root.kind == "path" else None

    @property
    def is_condition(self) -> bool:
        """Whether it is true or false by its form."""
        return self.root.kind in ("compare", "and", "or", "not")

    def evaluate(self, look: Look) -> Any:
        """Its value.

        Args:
            look: the value of a setting, by its path; raises `AbsentError` where there is none.

        Raises:
            AbsentError: a setting that it names is absent, or null where a number is needed.
            FormulaError: values do not go together, such as a word and a number.
        """
        known = {path: plain(look(path)) for path, _ in self.paths}
        return _evaluate(self.root, known)


def plain(value: Any) -> Any:
    """A part's settings stand for its name."""
    return value["name"] if isinstance(value, dict) and "name" in value else value


def read_formula(text: str) -> Formula:
    """Read a formula.

    Raises:
        FormulaError: it is none; the message says what was expected.
    """
    try:
        return Formula(text, _Parser(text).whole())
    except RecursionError:
        raise FormulaError("too many brackets within brackets", 1) from None


def text_of_path(path: Path) -> str:
    """`("content", "units", 0)` as `content.units[0]`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else (f".{key}" if text else str(key))
    return text


def keys_of_path(text: str) -> Path:
    """The inverse of `text_of_path`."""
    return tuple(int(i) if i else word for word, i in re.findall(r"([A-Za-z_]\w*)|\[(\d+)\]", text))


def _walk(term: Term) -> Iterator[Term]:
    yield term
    for inner in term.terms:
        yield from _walk(inner)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> Iterator[_Token]:
    place = 0
    while place < len(text) and text[place:].strip():
        found = _TOKEN.match(text, place)
        if found is None:
            _unread(text, place + len(text[place:]) - len(text[place:].lstrip()))
        kind = str(found.lastgroup)
        word = found.group(kind)
        at = found.start(kind) + 1
        yield _Token("sign" if word in _KEYWORDS else kind, word, at)
        place = found.end()
    yield _Token("end", "", len(text.rstrip()) + 1)


def _unread(text: str, place: int) -> NoReturn:
    sign = text[place]
    if sign in "\"'":
        raise FormulaError(f"the quote {sign} is not closed", place + 1)
    sign = text[place : place + 2] if text[place : place + 2] in _MEANT else sign
    hint = f"; use {_MEANT[sign]}" if sign in _MEANT else ""
    raise FormulaError(f"cannot read '{sign}'{hint}", place + 1)


class _Parser:
    """Recursive descent, one method for each strength of operators."""

    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text))
        self.place = 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.place]

    def taken(self, *signs: str) -> _Token | None:
        """The next token, if it is one of these signs; then it is read."""
        token = self.next
        if token.kind != "sign" or token.text not in signs:
            return None
        self.place += 1
        return token

    def expected(self, what: str) -> NoReturn:
        token = self.next
        found = f"'{token.text}'" if token.kind != "end" else "the end"
        raise FormulaError(f"{what} was expected, not {found}", token.at)

    def whole(self) -> Term:
        found = self.either()
        if self.next.kind != "end":
            self.expected("an operator")
        return found

    def either(self) -> Term:
        return self.joined("or", self.both)

    def both(self) -> Term:
        return self.joined("and", self.negated)

    def joined(self, word: str, inner: Callable[[], Term]) -> Term:
        terms = [inner()]
        at = self.next.at
        while self.taken(word):
            terms.append(inner())
        return terms[0] if len(terms) == 1 else Term(word, at, word, tuple(terms))

    def negated(self) -> Term:
        token = self.taken("not")
        return Term("not", token.at, "not", (self.negated(),)) if token else self.compared()

    def compared(self) -> Term:
        """A comparison, or a chain of them: `1 <= a < b`."""
        left, found = self.summed(), []
        while token := self.taken(*_COMPARES, "not"):
            word = token.text
            if word == "not":
                if not self.taken("in"):
                    self.expected("'in'")
                word = "not in"
            right = self.summed()
            found.append(Term("compare", token.at, word, (left, right)))
            left = right
        if not found:
            return left
        return found[0] if len(found) == 1 else Term("and", found[0].at, "and", tuple(found))

    def summed(self) -> Term:
        return self.chained(_SUMS, self.multiplied)

    def multiplied(self) -> Term:
        return self.chained(_PRODUCTS, self.signed)

    def chained(self, signs: dict[str, Any], inner: Callable[[], Term]) -> Term:
        left = inner()
        while token := self.taken(*signs):
            left = Term("binary", token.at, token.text, (left, inner()))
        return left

    def signed(self) -> Term:
        token = self.taken("-", "+")
        if token:
            return Term("sign", token.at, token.text, (self.signed(),))
        base = self.leaf()
        token = self.taken("**")
        return Term("binary", token.at, "**", (base, self.signed())) if token else base

    def leaf(self) -> Term:
        token = self.next
        self.place += 1
        if token.kind == "number":
            digits = token.text.isdigit()
            return Term("value", token.at, int(token.text) if digits else float(token.text))
        if token.kind == "text":
            return Term("value", token.at, token.text[1:-1])
        if token.text in _WORDS:
            return Term("value", token.at, _WORDS[token.text])
        if token.kind == "path":
            if self.taken("("):
                return self.call(token)
            return Term("path", token.at, keys_of_path(token.text))
        if token.text == "(":
            inner = self.either()
            if not self.taken(")"):
                self.expected("')'")
            return inner
        if token.text == "[":
            return Term("list", token.at, None, self.listed("]"))
        self.place -= 1
        return self.expected("a value")

    def call(self, name: _Token) -> Term:
        if name.text not in _FUNCTIONS:
            known = ", ".join(_FUNCTIONS)
            raise FormulaError(f"there is no function '{name.text}'; there are {known}", name.at)
        return Term("call", name.at, name.text, self.listed(")"))

    def listed(self, closing: str) -> tuple[Term, ...]:
        terms: list[Term] = []
        while not self.taken(closing):
            if terms and not self.taken(","):
                self.expected(f"',' or '{closing}'")
            terms.append(self.either())
        return tuple(terms)


def _evaluate(term: Term, known: dict[Path, Any]) -> Any:
    if term.kind == "value":
        return term.value
    if term.kind == "path":
        return known[term.value]
    if term.kind == "and":
        return all(_truth(t, known) for t in term.terms)
    if term.kind == "or":
        return any(_truth(t, known) for t in term.terms)
    if term.kind == "not":
        return not _truth(term.terms[0], known)
    values = [_evaluate(t, known) for t in term.terms]
    if term.kind == "list":
        return values
    try:
        return _computed(term, values)
    except (ZeroDivisionError, OverflowError, TypeError, ValueError) as error:
        missing = next((t for t, v in zip(term.terms, values, strict=True) if v is None), None)
        if missing is not None:  # null where a number is needed: there is nothing to compare
            raise AbsentError(missing.value if missing.kind == "path" else ()) from None
        shown = " and ".join(repr(value) for value in values)
        why = str(error) if isinstance(error, ZeroDivisionError) else f"does not work on {shown}"
        raise FormulaError(f"'{term.value}' {why}", term.at) from None


def _truth(term: Term, known: dict[Path, Any]) -> bool:
    value = _evaluate(term, known)
    if not isinstance(value, bool):
        raise FormulaError(f"is {value!r}, true or false was expected", term.at)
    return value


def _computed(term: Term, values: list[Any]) -> Any:
    if term.kind == "call":
        return _FUNCTIONS[term.value](*values)
    if term.kind == "sign":
        return -_number(values[0]) if term.value == "-" else _number(values[0])
    left, right = values
    if term.kind == "compare":
        return _compared(term.value, left, right)
    left, right = _number(left), _number(right)
    if term.value == "**":
        return _power(left, right)
    return {**_SUMS, **_PRODUCTS}[term.value](left, right)


def _compared(word: str, left: Any, right: Any) -> bool:
    if word in ("==", "!="):
        return _same(left, right) == (word == "==")
    if word in ("in", "not in"):
        if not isinstance(right, list | tuple | str):
            raise TypeError
        held = any(_same(left, r) for r in right) if not isinstance(right, str) else left in right
        return held == (word == "in")
    if word == "divides":
        left, right = _number(left), _number(right)
        return left != 0 and math.isclose(right / left, round(right / left), abs_tol=1e-9)
    both_words = isinstance(left, str) and isinstance(right, str)
    if not both_words:
        left, right = _number(left), _number(right)
    return bool(_ORDER[word](left, right))


def _same(left: Any, right: Any) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value


def _power(base: Any, exponent: Any) -> Any:
    if abs(exponent) > 64:
        raise OverflowError
    found = base**exponent
    if isinstance(found, complex):
        raise ValueError
    return found
