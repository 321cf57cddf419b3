"""Regular expressions over text columns, with the verdict of pandas 3 (and so of Great Expectations): by construction.

pandas searches Arrow text with RE2 and falls back to Python's `re` where RE2 would answer otherwise. Some of its
grounds lie in the pattern, some in the data (text beyond ASCII beside \\w \\d \\b, a newline beside $). The same
grounds decide here; only, Python's `re` is asked once per distinct value, and its answers are kept.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.contracts.texts import all_ascii, has, repeats

ANSWERS_MAX = 100_000
"""Answers kept per pattern; past it all are forgotten, and asked again as they come."""

_UNICODE_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\(?:[uU]|N{)")
_END_ANCHOR = re.compile(r"(?<!\\)((?:\\\\)*)\\Z")
_SPACE = {_parser.CATEGORY_SPACE, _parser.CATEGORY_NOT_SPACE}
_WORDS = {_parser.CATEGORY_WORD, _parser.CATEGORY_NOT_WORD, _parser.CATEGORY_DIGIT, _parser.CATEGORY_NOT_DIGIT}
_EDGES = {_parser.AT_BOUNDARY, _parser.AT_NON_BOUNDARY}


def _nodes(tokens: Any) -> Iterable[tuple[Any, Any]]:
    """Every node of a parsed pattern; those inside lookarounds are left out, as pandas leaves them out."""
    for op, argument in tokens:
        yield op, argument
        if op is _parser.SUBPATTERN:
            yield from _nodes(argument[3])
        elif op is _parser.BRANCH:
            for branch in argument[1]:
                yield from _nodes(branch)
        elif op in (_parser.MAX_REPEAT, _parser.MIN_REPEAT, _parser.POSSESSIVE_REPEAT):
            yield from _nodes(argument[2])
        elif op in (_parser.ATOMIC_GROUP, _parser.IN):
            yield from _nodes(argument)


class Answers:
    """A yes or no for each value of a text column, asked of a slow function once per distinct value."""

    def __init__(self, ask: Callable[[str], bool]) -> None:
        self._ask = ask
        self._known: dict[str, bool] = {}

    def __call__(self, column: pa.Array) -> pa.BooleanArray:
        """True, false, or null where the column is null."""
        encoded = column.dictionary_encode()
        values = encoded.dictionary.to_pylist()
        answers = list(map(self._known.get, values))
        if None in answers:
            if len(self._known) > ANSWERS_MAX:
                self._known.clear()
            self._known.update((v, self._ask(v)) for v, a in zip(values, answers, strict=True) if a is None)
            answers = list(map(self._known.__getitem__, values))
        return pa.array(answers, type=pa.bool_()).take(encoded.indices)


class Search:
    """`re.search(pattern, value) is not None` for a text column, as pandas answers it."""

    def __init__(self, pattern: str) -> None:
        """Raises ValueError when the pattern is none, for Python or for RE2."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            try:
                nodes = list(_nodes(_parser.parse(pattern)))
            except re.error:
                nodes = []  # not Python's, but RE2 may know it (\p{L}): pandas then leaves it to RE2
            escaped = _UNICODE_ESCAPE.search(pattern) is not None
            beyond = any(op in (_parser.ASSERT, _parser.ASSERT_NOT, _parser.GROUPREF) for op, _ in nodes)
            space = any(op is _parser.CATEGORY and a in _SPACE for op, a in nodes)
            self.python_always = escaped or beyond or space
            self.ascii_only = any((op is _parser.CATEGORY and a in _WORDS) or (op is _parser.AT and a in _EDGES)
                                  for op, a in nodes)
            self.no_newline = any(op is _parser.AT and a is _parser.AT_END for op, a in nodes)
            self._pattern = _END_ANCHOR.sub(r"\1\\z", pattern)
            if self.python_always or self.ascii_only or self.no_newline:
                found = re.compile(pattern).search
                self._python = Answers(lambda value: found(value) is not None)
        if not self.python_always:
            pc.match_substring_regex(pa.array(["x"]), self._pattern)

    def __call__(self, column: pa.Array) -> pa.BooleanArray:
        """Whether each value matches somewhere; null where the column is null."""
        if repeats(column):
            encoded = column.dictionary_encode()
            return self._found(encoded.dictionary).take(encoded.indices)
        return self._found(column)

    def _found(self, column: pa.Array) -> pa.BooleanArray:
        if self.python_always or self._needs_python(column):
            return self._python(column)
        return pc.match_substring_regex(column, self._pattern)

    def _needs_python(self, column: pa.Array) -> bool:
        return (self.ascii_only and not all_ascii(column)) or (self.no_newline and has(column, "\n"))
