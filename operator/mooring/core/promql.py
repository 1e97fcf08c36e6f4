"""Free PromQL of a tenant, made safe to be asked with the operator's rights.

A query is text with placeholders. :func:`prepare` fills them in, parses the text, refuses what
could never be evidence or would be too dear, writes the namespace into every selector and reads its
own output back to be sure. What comes out is the only text that is ever sent.

Placeholders, a closed list:

- ``{{ selector }}``: inside braces, the matchers of the candidate's own pods;
- ``{{ revision }}``, ``{{ deployment }}``, ``{{ namespace }}``: names, inside strings;
- ``{{ window }}``: the time to look back over, such as ``[{{ window }}]``.

The namespace matcher is what keeps tenants apart: Prometheus is asked as the operator, which may
read everything. So it is added by walking the tree, to selectors in subqueries, operands and
arguments alike; other values are refused, and so is ``info()``, which reads series by itself.
Functions that write labels (label_replace) can forge what a number is called, not where it is from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Final

import promql_parser as pp

from mooring.core.promql_print import Printer, duration, quoted
from mooring.core.promql_tokens import MAX_LENGTH, MAX_SELECTORS, BadQuery, parse

__all__ = [
    "MAX_LENGTH",
    "PLACEHOLDERS",
    "BadQuery",
    "Bound",
    "Prepared",
    "confine",
    "holds",
    "prepare",
    "selectors",
]

PLACEHOLDERS: Final = ("selector", "revision", "namespace", "deployment", "window")
#: How far back a query may look: ranges, and with offsets the same hour of last week.
MAX_RANGE: Final = timedelta(days=1)
MAX_OFFSET: Final = timedelta(days=8)
#: Steps of a subquery, those of all around it multiplied.
MAX_STEPS: Final = 11_000

_PLACEHOLDER: Final = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEFAULT_STEP: Final = timedelta(seconds=15)  # of Prometheus it is a setting; a guess for the bound
_COMPARISONS: Final = frozenset({"==", "!=", "<", ">", "<=", ">="})


@dataclass(frozen=True, slots=True)
class Bound:
    """What the placeholders stand for. Names are Kubernetes names; ValueError otherwise.

    ``window``: the time over which rates are taken. ``namespace_label``, ``pod_label``: how the
    scrape configuration calls the two; an administrator's setting.
    """

    namespace: str
    deployment: str
    revision: str
    window: timedelta = timedelta(minutes=1)
    namespace_label: str = "namespace"
    pod_label: str = "pod"

    def __post_init__(self) -> None:
        for name in (self.namespace, self.deployment, self.revision):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a Kubernetes name")
        for label in (self.namespace_label, self.pod_label):
            if not _LABEL.fullmatch(label):
                raise ValueError(f"{label!r} is not the name of a label")
        if self.window < timedelta(seconds=1):
            raise ValueError("the window must be at least 1s")

    def values(self) -> Mapping[str, str]:
        """Placeholder to text. The pods of a revision are those of its Deployment."""
        pods = f"{re.escape(self.deployment)}-{re.escape(self.revision)}-[a-z0-9]+-[a-z0-9]+"
        return {
            "selector": f"{self.namespace_label}={quoted(self.namespace)},"
            f"{self.pod_label}=~{quoted(pods.replace(chr(92) + '-', '-'))}",
            "revision": self.revision,
            "namespace": self.namespace,
            "deployment": self.deployment,
            "window": duration(self.window),
        }


def holds(query: str, placeholder: str) -> bool:
    """Whether a query as its author wrote it has this placeholder."""
    return any(match.group(1) == placeholder for match in _PLACEHOLDER.finditer(query))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A query that may be sent.

    ``masks_missing``: one side of an ``or`` reads no series (``… or vector(0)``), or ``absent()``
    is used, so it answers even where nothing is measured. That is the way to say "no errors yet
    is 0", and it means that a missing scrape looks the same; status should say so.
    """

    text: str
    masks_missing: bool


@lru_cache(maxsize=4096)
def prepare(query: str, bound: Bound) -> Prepared:
    """The text to send for ``query``. Pure, and remembered, since every tick asks for the same.

    Raises BadQuery, whose position is a place in ``query`` as the user wrote it.
    """
    text, places = _fill(query, bound)
    try:
        tree = parse(text)
    except BadQuery as error:
        raise BadQuery(error.message, _place(places, error.position)) from None
    _check_kind(tree)
    safe = _confined(tree, bound.namespace, bound.namespace_label, bound.window)
    return Prepared(safe, _masks_missing(tree))


def confine(text: str, namespace: str, label: str = "namespace") -> str:
    """The same for text without placeholders whose result may have several series.

    A runtime's signals are such: a tenant may write a ModelRuntime. Raises BadQuery.
    """
    return _confined(parse(text), namespace, label)


def _confined(tree: pp.Expr, namespace: str, label: str, window: timedelta = timedelta()) -> str:
    try:
        _check(tree, window)
        safe = Printer(label, namespace).text(tree)
    except OverflowError:
        raise BadQuery("a time is too long") from None
    _verify(safe, namespace, label)
    return safe


def _fill(query: str, bound: Bound) -> tuple[str, list[tuple[int, int, int]]]:
    """The query with values, and (begin in the result, begin in the query, shift within) pieces."""
    if len(query) > MAX_LENGTH:
        raise BadQuery(f"the query has {len(query)} characters; {MAX_LENGTH} are the limit")
    values = bound.values()
    parts: list[str] = []
    places: list[tuple[int, int, int]] = [(0, 0, 1)]
    length = at = 0
    for match in _PLACEHOLDER.finditer(query):
        name = match.group(1)
        if name not in values:
            known = ", ".join(f"{{{{ {one} }}}}" for one in PLACEHOLDERS)
            raise BadQuery(
                f"unknown placeholder {{{{ {name} }}}}: use one of {known}", match.start() + 1
            )
        parts += [query[at : match.start()], values[name]]
        length += match.start() - at
        places.append((length, match.start(), 0))  # all of a value is at its placeholder
        length += len(values[name])
        at = match.end()
        places.append((length, at, 1))
    parts.append(query[at:])
    text = "".join(parts)
    for wrong in ("{{", "}}"):
        if wrong in text:
            raise BadQuery(f"{wrong} is not closed, or is no placeholder", query.find(wrong) + 1)
    return text, places


def _place(places: list[tuple[int, int, int]], position: int) -> int:
    """A position (from 1) of the filled text as one of the query; 0 stays 0."""
    if not position:
        return 0
    begin, source, moves = max(p for p in places if p[0] <= position - 1)
    return source + (position - 1 - begin) * moves + 1


def selectors(tree: object) -> Iterator[pp.VectorSelector]:
    """Every selector below a node, those of ranges too."""
    for node, _ in _walk(tree, timedelta()):
        if isinstance(node, pp.VectorSelector):
            yield node


def _children(node: object) -> tuple[object, ...]:
    match node:
        case pp.MatrixSelector():
            return (node.vector_selector,)
        case pp.Call():
            return tuple(node.args)
        case pp.AggregateExpr():
            return (node.expr,) if node.param is None else (node.param, node.expr)
        case pp.BinaryExpr():
            return (node.lhs, node.rhs)
        case pp.SubqueryExpr() | pp.UnaryExpr() | pp.ParenExpr():
            return (node.expr,)
        case _:
            return ()


def _walk(node: object, back: timedelta) -> Iterator[tuple[object, timedelta]]:
    """Every node, and how far the offsets around it reach back."""
    yield node, back
    if isinstance(node, pp.SubqueryExpr):
        back += node.offset or timedelta()
    for child in _children(node):
        yield from _walk(child, back)


def _check(tree: pp.Expr, window: timedelta) -> None:
    """Refuses what could never be evidence, or would cost Prometheus too much.

    ``window`` is what ``{{ window }}`` stands for: ours to choose, so a range may be as long.
    """
    found = list(_walk(tree, timedelta()))
    reads = [
        (n, b + (n.offset or timedelta())) for n, b in found if isinstance(n, pp.VectorSelector)
    ]
    if not reads:
        raise BadQuery("the query reads no series, so it measures nothing")
    if len(reads) > MAX_SELECTORS:
        raise BadQuery(f"more than {MAX_SELECTORS} selectors: record parts of it in Prometheus")
    if all(back > timedelta() for _, back in reads):
        raise BadQuery("every selector has an offset, so nothing of the present is read")
    for node, back in found:
        match node:
            case pp.Call() if node.func.name == "info":
                raise BadQuery("info() reads series that the query does not name: use a join")
            case pp.VectorSelector() | pp.SubqueryExpr():
                _check_offset(node.offset or timedelta(), back)
            case _:
                pass
    _check_steps(tree, 1, window)


def _check_kind(tree: object) -> None:
    """Refuses results that are no number: ranges, strings, and filters that answer nothing."""
    node = tree
    while isinstance(node, pp.ParenExpr | pp.UnaryExpr):
        node = node.expr
    match node:
        case pp.MatrixSelector() | pp.SubqueryExpr():
            raise BadQuery("the query gives a range of values: wrap it, in rate() for instance")
        case pp.StringLiteral():
            raise BadQuery("the query gives a string, not a number")
        case pp.BinaryExpr() if str(node.op).strip() in _COMPARISONS:
            if node.modifier is None or not node.modifier.return_bool:
                raise BadQuery(
                    "a comparison answers nothing when it is false: put the limit into min or max, "
                    f"or write {str(node.op).strip()} bool"
                )
        case _:
            pass


def _check_offset(own: timedelta, around: timedelta) -> None:
    if own < timedelta():
        raise BadQuery("a negative offset reads the future")
    if own + around > MAX_OFFSET:
        raise BadQuery(f"offsets reach back further than {duration(MAX_OFFSET)}")


def _check_steps(node: object, times: int, window: timedelta) -> None:
    """Bounds ranges, and evaluations: those of a subquery count for each step around it."""
    span = node.range if isinstance(node, pp.MatrixSelector | pp.SubqueryExpr) else None
    if span is not None and span > MAX_RANGE and span != window:
        raise BadQuery(f"a range is longer than {duration(MAX_RANGE)}: record the rate instead")
    if isinstance(node, pp.SubqueryExpr):
        step = node.step or _DEFAULT_STEP
        if step <= timedelta():
            raise BadQuery("the step of a subquery must be positive")
        times *= max(1, (span or timedelta()) // step)
        if times > MAX_STEPS:
            raise BadQuery(
                f"its subqueries take {times} steps; {MAX_STEPS} are the limit: take a longer step"
            )
    for child in _children(node):
        _check_steps(child, times, window)


def _masks_missing(tree: object) -> bool:
    for node, _ in _walk(tree, timedelta()):
        if isinstance(node, pp.Call) and node.func.name in ("absent", "absent_over_time"):
            return True
        if (
            isinstance(node, pp.BinaryExpr)
            and str(node.op).strip() == "or"
            and not all(any(True for _ in selectors(side)) for side in (node.lhs, node.rhs))
        ):
            return True
    return False


def _verify(text: str, namespace: str, label: str) -> None:
    """Reads the output back: every selector must ask for the namespace once, and for no other.

    It always does. Should the printer and the parser ever disagree about a quote, this is where
    that ends: nothing is sent.
    """
    try:
        tree = pp.parse(text)
    except ValueError as error:
        raise BadQuery(f"the query cannot be written safely ({error})") from None
    for selector in selectors(tree):
        found = [m for m in selector.matchers.matchers if m.name == label]
        exact = len(found) == 1 and found[0].op == pp.MatchOp.Equal
        if not exact or found[0].value != namespace or selector.matchers.or_matchers:
            raise BadQuery("the query cannot be written safely (the namespace is not certain)")
