"""PromQL as a row of tokens: to bound a query before it is parsed, and to say where it breaks.

The parser (Prometheus' own grammar, in Rust) tells what is wrong, but not where. The place is found
by asking it again: the first token after which no continuation parses is the one at fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import promql_parser

#: Beyond these a query is refused unread: walking a tree costs the cube of its depth.
MAX_LENGTH: Final = 4096
MAX_DEPTH: Final = 20
MAX_OPERATORS: Final = 40
MAX_SELECTORS: Final = 20

#: Seconds; about 30 years.
_LONGEST: Final = 1e9

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)
      | (?P<quote>["'`])
      | (?P<word>[A-Za-z0-9_:.]+)
      | (?P<operator>=~|!~|==|!=|<=|>=|[-+*/%^<>])
      | (?P<other>[=@,(){}\[\]])
    """,
    re.VERBOSE,
)
_PAIRS: Final = {"(": ")", "{": "}", "[": "]"}
_WORD_OPERATORS: Final = frozenset({"and", "or", "unless", "atan2"})
_MATCHING: Final = frozenset({"=~", "!~", "!="})
#: What could follow a prefix of a right query, before its brackets are closed.
_GO_ON: Final = (
    "", "x", "1", '"s"', "5m", "[5m]", "(x)", "x[5m]", "(x[5m])", "a", '="b"', 'a="b"', "(a)(x)",
    "(a)", " x", " (x)", " y", ",x", ",1", ",x[5m]", ",.5,x[5m]", ',"a"', ',"a","b","c","d"',
    ',"b","c","d"', ',"c","d"', ',"d"', ',"a",x', "5m]", ":]", "=5", ",.5", ",.5,.5", ")",
    " 5m", "(5m)", "1,x", "1,x[5m]", "x,x", 'x,"a"', '"a",x', 'x,"a","b","c","d"', 'x,"a","b","c"',
)  # fmt: skip


class BadQuery(ValueError):
    """A query that is not sent. ``position``: of the first character at fault, from 1; 0: none."""

    def __init__(self, message: str, position: int = 0) -> None:
        self.message = message
        self.position = position
        super().__init__(f"{message} (at character {position})" if position else message)


@dataclass(frozen=True, slots=True)
class Token:
    """``kind`` is the group of the pattern above. ``start`` and ``end`` are places in the text."""

    kind: str
    text: str
    start: int
    end: int


def tokens(text: str) -> Iterator[Token]:
    """All tokens but space and comments. Raises BadQuery at what begins none."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadQuery(f"{text[at]!r} is no part of PromQL", at + 1)
        kind = str(match.lastgroup)
        if kind == "quote":
            raise BadQuery("this string does not end", at + 1)
        if kind != "space":
            yield Token(kind, match.group(), at, match.end())
        at = match.end()


def bounded(text: str) -> tuple[Token, ...]:
    """The tokens of a query that is small enough to be parsed. Raises BadQuery."""
    if not text.strip():
        raise BadQuery("the query is empty")
    if len(text) > MAX_LENGTH:
        raise BadQuery(f"the query has {len(text)} characters; {MAX_LENGTH} are the limit")
    found = tuple(tokens(text))
    _check_times(found)
    depth = operators = 0
    open_braces = 0
    for token in found:
        if token.text in _PAIRS:
            depth += 1
        elif token.text in _PAIRS.values():
            depth -= 1
        open_braces += (token.text == "{") - (token.text == "}")
        in_matchers = open_braces > 0 and (token.text in _MATCHING)
        operators += (token.kind == "operator" and not in_matchers) or (
            token.kind == "word" and token.text.lower() in _WORD_OPERATORS
        )
        if depth > MAX_DEPTH:
            raise BadQuery(
                f"brackets are nested deeper than {MAX_DEPTH}: simplify the query", token.start + 1
            )
        if operators > MAX_OPERATORS:
            raise BadQuery(
                f"more than {MAX_OPERATORS} operators: record parts of the query in Prometheus",
                token.start + 1,
            )
    return found


def _check_times(found: tuple[Token, ...]) -> None:
    """Refuses times beyond any use: ``x[1e300]`` makes the parser break off, not refuse."""
    square = 0
    before = ""
    for token in found:
        square += (token.text == "[") - (token.text == "]")
        if token.kind == "word" and (square > 0 or before == "offset"):
            longest = max(map(_seconds, token.text.split(":")))
            if longest > _LONGEST:
                raise BadQuery("this time is too long", token.start + 1)
        if token.text not in ("-", "+"):
            before = token.text.lower()


def _seconds(text: str) -> float:
    """A bare number; 0 for what has a unit, or is a name."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def parse(text: str) -> promql_parser.Expr:
    """The syntax tree of a bounded query. Raises BadQuery with the parser's words and the place."""
    found = bounded(text)
    try:
        return promql_parser.parse(text)
    except ValueError as error:
        place = _fault(str(error), text, found)
        raise BadQuery(_told(str(error), text, place), place + 1) from None
    except BaseException as error:
        # The parser's own defects end in an exception that is no Exception; they end here.
        if type(error).__name__ == "PanicException":
            raise BadQuery("the parser cannot read this query") from None
        raise


def _told(said: str, text: str, place: int) -> str:
    """The parser's words, with what stands at the place."""
    if place >= len(text.rstrip()):
        return f"{said}: the query ends too early"
    match = _TOKEN.match(text, place)
    return f"{said}, at {match.group()!r}" if match else said


def _fault(said: str, text: str, found: tuple[Token, ...]) -> int:
    """Where the first token begins after which nothing can make the text a query again."""
    unknown = re.fullmatch(r"unknown function with name '(\w+)'", said)
    for token in found:
        if unknown and token.text == unknown[1]:
            return token.start
    low, high = 0, len(found)
    # What comes before a prefix that can be continued can be too, so halving finds the first that
    # cannot.
    while low < high:
        middle = (low + high + 1) // 2
        if _viable(text[: found[middle - 1].end], found[:middle]):
            low = middle
        else:
            high = middle - 1
    return found[low].start if low < len(found) else len(text.rstrip())


def _viable(prefix: str, found: tuple[Token, ...]) -> bool:
    closing = _closing(found)
    ways = [closing]
    if closing.startswith("}"):  # a function may want a range
        ways.append("}[5m]" + closing[1:])
    if closing.startswith("]"):  # one of what follows closes it
        ways.append(closing[1:])
    return any(_parses(prefix + more + way) for way in ways for more in _GO_ON)


def _closing(found: tuple[Token, ...]) -> str:
    stack: list[str] = []
    for token in found:
        if token.text in _PAIRS:
            stack.append(_PAIRS[token.text])
        elif stack and token.text == stack[-1]:
            stack.pop()
    return "".join(reversed(stack))


def _parses(text: str) -> bool:
    try:
        promql_parser.parse(text)
    except ValueError:
        return False
    return True
