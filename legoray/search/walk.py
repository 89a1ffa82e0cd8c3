"""What a tree of a search space holds: all that is drawn, and what depends on what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from legoray.search.tree import (
    END,
    Case,
    Choice,
    Const,
    Group,
    Moved,
    Node,
    Option,
    Range,
    Scalar,
    below,
    same,
)
from legoray.yamlfile import Keys


@dataclass(frozen=True)
class Atom:
    """One option of a choice, or one value of a range, with the choices that lead to it."""

    path: str
    value: Scalar
    above: Mapping[str, Scalar]
    keys: Keys
    end: bool = True  # False for what lies between the ends of a range

    def pins(self) -> dict[str, Scalar]:
        return {**self.above, self.path: self.value}

    def needs(self, other: Atom) -> bool:
        """Whether this one is reached through the other."""
        return other.path in self.above and same(self.above[other.path], other.value)


def atoms(node: Node, path: str, above: Mapping[str, Scalar] | None = None) -> Iterator[Atom]:
    """Every option and every probe of every range below a node."""
    above = above or {}
    if isinstance(node, Range):
        for value in node.probes():
            yield Atom(path, value, above, node.keys, value in (node.low, node.high))
    elif isinstance(node, Choice):
        for option in node.options:
            yield Atom(path, option.label, above, option.node.keys)
            inner = {**above, path: option.label}
            yield from atoms(option.node, below(path, option.label), inner)
    elif isinstance(node, Case):
        for option in node.options:
            yield from atoms(option.node, below(path, option.label), above)
    elif isinstance(node, Moved):
        yield from (Atom(path + END, end, above, node.keys) for end in ("low", "high"))
    elif isinstance(node, Group):
        for key, child in node.children.items():
            yield from atoms(child, f"{path}/{key}", above)


def independent(node: Node) -> Node | None:
    """The tree without its dependence on other values, for checks of each value by itself.

    A case becomes a choice among its lines; a range keeps the ends that are numbers, and is left
    out where there is none.
    """
    if isinstance(node, Moved):
        return node.sketch()
    if isinstance(node, Group):
        found = {key: independent(child) for key, child in node.children.items()}
        kept = {key: child for key, child in found.items() if child is not None}
        return Group(kept, node.keys, node.sequence)
    if isinstance(node, Choice | Case):
        pairs = [(option.label, independent(option.node)) for option in node.options]
        options = tuple(Option(label, inner) for label, inner in pairs if inner is not None)
        return Choice(options, node.keys) if options else None
    return node


def dependent(node: Node, path: str) -> Iterator[tuple[str, Case | Moved]]:
    """Every node below one that depends on other values, with its path."""
    if isinstance(node, Case | Moved):
        yield path, node
    if isinstance(node, Choice | Case):
        for option in node.options:
            yield from dependent(option.node, below(path, option.label))
    elif isinstance(node, Group):
        for key, child in node.children.items():
            yield from dependent(child, f"{path}/{key}")


def ranges(node: Node) -> Iterator[Range | Moved]:
    """Every range below a node."""
    if isinstance(node, Range | Moved):
        yield node
    elif isinstance(node, Choice | Case):
        for option in node.options:
            yield from ranges(option.node)
    elif isinstance(node, Group):
        for child in node.children.values():
            yield from ranges(child)


def searched(node: Node) -> bool:
    """Whether anything below a node is searched."""
    if isinstance(node, Group):
        return any(searched(child) for child in node.children.values())
    return not isinstance(node, Const)
