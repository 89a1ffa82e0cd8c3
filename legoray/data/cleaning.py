"""Texts as pages of shops and catalogues give them, made plain by steps over whole columns.

`plain_text` does, in this order:
1. scripts, styles and comments go, with all that is in them
2. entities become characters: `&amp;`, `&#233;`, `&#xE9;`; a bare `&` stays
3. tags of HTML go: `<b>` leaves nothing, `<br>` a blank. `a < b`, `<3` and `<Unknown>` stay: only
   names that HTML has are tags. A tag cut off at the end (`<span class="x"`) goes, and so does
   the rest of one at the beginning (`Magazines" />`)
4. entities again, for what was escaped twice
5. white space, control characters and characters of no width become one blank; none at the ends

`without_code` empties texts that are a page's program in place of a title, of which Amazon's data
of 2018 have many ("var aPageStart = (new Date()).getTime();").
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from legoray.data.ragged import keep, offsets_of, rows_of
from legoray.errors import InputError, Problem

# Elements of HTML: those within a line, and all others, which part what stands around them.
INLINE = (
    "a|abbr|acronym|b|bdo|big|cite|code|del|dfn|em|font|i|ins|kbd|mark|nobr|q|s|samp|small|span|"
    "strike|strong|sub|sup|tt|u|var|wbr"
)
OTHERS = (
    "address|area|article|aside|audio|base|basefont|blockquote|body|br|button|canvas|caption|center|"
    "col|colgroup|dd|details|dir|div|dl|dt|embed|fieldset|figcaption|figure|footer|form|frame|"
    "frameset|h[1-6]|head|header|hr|html|iframe|img|input|label|legend|li|link|main|map|marquee|"
    "menu|meta|nav|noframes|noscript|object|ol|optgroup|option|p|param|picture|pre|section|select|"
    "source|summary|svg|table|tbody|td|textarea|tfoot|th|thead|title|tr|ul|video"
)

_HIDDEN = (
    r"(?is)<(?:script|style)\b[^>]*>.*?(?:</(?:script|style)\s*>|$)"
    r"|<!--.*?(?:-->|$)|<!doctype[^>]*>"
)
_INLINE = rf"(?i)</?(?:{INLINE})(?:\s[^<>]*|/)?>"
_OTHER = rf"(?i)</?(?:{OTHERS})(?:\s[^<>]*|/)?>"
_CUT = rf"(?i)</?(?:{INLINE}|{OTHERS})(?:\s[^<>]*)?$|^[^<>]*[\"'](?:\s*/)?>"
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_SPACE = r"[\s\p{Z}\p{Cc}\x{200B}\x{FEFF}]+"
# A text with something to tighten: any of these but the blank, or a blank too many.
_LOOSE = (
    r"^ | $|  |[\p{Cc}\x{A0}\x{1680}\x{2000}-\x{200B}"
    r"\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}]"
)
_CODE = r"\.getTime\(\)|function\s*\w*\([^)]*\)\s*\{|[.#][\w-]+\s*\{[^{}]*:[^{}]*\}"
_BETWEEN = "\x00"  # between texts that are looked at as one; none holds it

COLUMN_BYTES = (1 << 31) - 1  # of one column of texts, in Arrow


@dataclass(frozen=True)
class Plain:
    """Texts (or lists of them) without nulls, and which of them held markup or entities."""

    text: pa.Array
    marked: pa.Array


def plain_text(column: pa.ChunkedArray | pa.Array) -> Plain:
    """The texts of a column as a reader sees them: see above. No value is the empty text."""
    given = pc.replace_substring(pc.fill_null(_one(column), ""), _BETWEEN, " ")
    text = _where(pc.match_substring(given, "<"), given, _without_hidden)
    text = _where(pc.match_substring(text, "&"), text, _unescaped)
    text = _where(pc.match_substring_regex(text, "[<>]"), text, _without_tags)
    text = _where(pc.match_substring(text, "&"), text, _unescaped)
    marked = pc.not_equal(given, text)
    return Plain(_where(pc.match_substring_regex(text, _LOOSE), text, _tightened), marked)


def without_code(texts: pa.Array) -> pa.Array:
    """The texts; those that hold a program or a style sheet of a page become empty."""
    return pc.if_else(pc.match_substring_regex(texts, _CODE), "", texts)


def plain_lists(column: pa.ChunkedArray | pa.Array) -> Plain:
    """Lists of texts, each text made plain; a list is marked where one of its texts is."""
    lists = _one(column)
    offsets = _offsets(lists)
    parts = plain_text(lists.flatten())
    marked = np.zeros(len(lists), bool)
    marked[rows_of(offsets)[parts.marked.to_numpy(zero_copy_only=False)]] = True
    return Plain(_lists(offsets, parts.text), pa.array(marked))


def joined(column: pa.ChunkedArray | pa.Array, separator: str) -> pa.Array:
    """Lists of texts as texts; empty parts and nulls are passed over, no list is the empty text."""
    lists = _one(column)
    parts = pc.fill_null(lists.flatten(), "")
    filled = pc.not_equal(pc.utf8_trim_whitespace(parts), "")
    offsets = keep(_offsets(lists), filled.to_numpy(zero_copy_only=False))
    return pc.binary_join(_lists(offsets, parts.filter(filled)), separator)


def joined_paths(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Lists of lists of texts: `[["Books", "Art"], ["Gifts"]]` as "Books, Art; Gifts"."""
    lists = _one(column)
    return joined(_lists(_offsets(lists), joined(lists.flatten(), ", ")), "; ")


def whole_column(table: pa.Table, name: str, advice: str) -> pa.Array:
    """A column of texts in one piece.

    Raises:
        InputError: they are longer than a column may be; `advice` says what to do.
    """
    column = table[name]
    if column.nbytes > COLUMN_BYTES:
        told = f"the {name}s hold {column.nbytes / 2**30:.1f} GB, a column at most 2 GB"
        raise InputError(Problem("", told, advice))
    return _one(column)


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _offsets(lists: pa.ListArray) -> np.ndarray:
    sizes = pc.fill_null(pc.list_value_length(lists), 0)
    return offsets_of(sizes.to_numpy(zero_copy_only=False))


def _lists(offsets: np.ndarray, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)


def _where(which: pa.Array, texts: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Texts, changed where `which` is true: most have nothing to clean."""
    if not pc.any(which).as_py():
        return texts
    return pc.replace_with_mask(texts, which, change(texts.filter(which)))


def _without_hidden(texts: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(texts, _HIDDEN, " ")


def _without_tags(texts: pa.Array) -> pa.Array:
    texts = pc.replace_substring_regex(_without_hidden(texts), _INLINE, "")
    texts = pc.replace_substring_regex(texts, _OTHER, " ")
    return pc.replace_substring_regex(texts, _CUT, "")


def _unescaped(texts: pa.Array) -> pa.Array:
    """All entities of all texts in one pass: the texts are one long text meanwhile."""
    one = pc.binary_join(
        pa.LargeListArray.from_arrays(pa.array([0, len(texts)], pa.int64()), texts), _BETWEEN
    )
    long = _ENTITY.sub(lambda found: html.unescape(found.group()), one[0].as_py())
    return pc.split_pattern(pa.array([long]), _BETWEEN).values


def _tightened(texts: pa.Array) -> pa.Array:
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, _SPACE, " "))
