"""A syntax tree of PromQL written as text again, with the namespace matcher in every selector.

The parser's own printers are not used: ``str()`` leaves quotes in label values as they are, so that
a value could end its string and begin a selector of its own, and neither printer shows a changed
matcher. This one knows a closed list of nodes; what it does not know it refuses. It puts brackets
round every operand, so precedence cannot change.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import promql_parser as pp

from mooring.core.promql_tokens import BadQuery

_PLAIN_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN_METRIC: Final = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
# The parser's enumerations have no hash, so they are pairs and not dictionaries.
_OPS: Final = (
    (pp.MatchOp.Equal, "="),
    (pp.MatchOp.NotEqual, "!="),
    (pp.MatchOp.Re, "=~"),
    (pp.MatchOp.NotRe, "!~"),
)
_GROUPS: Final = (
    (pp.VectorMatchCardinality.ManyToOne, "group_left"),
    (pp.VectorMatchCardinality.OneToMany, "group_right"),
)
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def quoted(text: str) -> str:
    """A PromQL string in double quotes that means exactly ``text``."""
    return '"' + "".join(map(_character, text)) + '"'


def _character(one: str) -> str:
    if one in _ESCAPES:
        return _ESCAPES[one]
    return one if one.isprintable() or one == " " else _escaped(one)


def _escaped(one: str) -> str:
    code = ord(one)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def duration(span: timedelta) -> str:
    """A length of time, such as ``90s`` or ``1500ms``; negative ones too."""
    milliseconds = round(span / timedelta(milliseconds=1))
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


@dataclass(frozen=True, slots=True)
class Printer:
    """Writes trees whose selectors read the namespace ``namespace``, by the label ``label``."""

    label: str
    namespace: str

    def text(self, node: object) -> str:
        """The node as PromQL. Raises BadQuery for what it does not know."""
        match node:
            case pp.NumberLiteral():
                return _number(node.val)
            case pp.StringLiteral():
                return quoted(node.val)
            case pp.VectorSelector():
                return self._selector(node) + _when(node)
            case pp.MatrixSelector():
                inner = node.vector_selector
                return f"{self._selector(inner)}[{duration(node.range)}]{_when(inner)}"
            case pp.SubqueryExpr():
                step = duration(node.step) if node.step is not None else ""
                span = duration(node.range or timedelta())
                return f"({self.text(node.expr)})[{span}:{step}]{_when(node)}"
            case pp.Call():
                return f"{node.func.name}({', '.join(map(self.text, node.args))})"
            case pp.AggregateExpr():
                return self._aggregate(node)
            case pp.UnaryExpr():
                return f"-({self.text(node.expr)})"
            case pp.ParenExpr():
                return f"({self.text(node.expr)})"
            case pp.BinaryExpr():
                return self._binary(node)
        raise BadQuery(f"{type(node).__name__} is not supported in a metric's query")

    def _selector(self, node: pp.VectorSelector) -> str:
        if node.matchers.or_matchers:
            raise BadQuery('"or" between label matchers is not supported: write two selectors')
        matchers = [f"{_label(self.label)}={quoted(self.namespace)}"]
        for matcher in node.matchers.matchers:
            if matcher.name != self.label:
                matchers.append(
                    f"{_label(matcher.name)}{_operator(matcher.op)}{quoted(matcher.value)}"
                )
            elif matcher.op != pp.MatchOp.Equal or matcher.value != self.namespace:
                asked = f"{self.label}{_operator(matcher.op)}{quoted(matcher.value)}"
                raise BadQuery(
                    f"a selector asks for {asked}: only the ModelDeployment's own namespace "
                    f"{self.namespace} can be read, and the matcher for it is added by itself"
                )
        name = node.name or ""
        if name and not _PLAIN_METRIC.fullmatch(name):
            matchers.insert(0, f"__name__={quoted(name)}")
            name = ""
        return f"{name}{{{','.join(matchers)}}}"

    def _aggregate(self, node: pp.AggregateExpr) -> str:
        by = ""
        if node.modifier is not None:
            word = "by" if node.modifier.type == pp.AggModifierType.By else "without"
            by = f" {word} ({_labels(node.modifier.labels)})"
        arguments = [] if node.param is None else [self.text(node.param)]
        arguments.append(self.text(node.expr))
        return f"{str(node.op).strip()}{by} ({', '.join(arguments)})"

    def _binary(self, node: pp.BinaryExpr) -> str:
        words = [str(node.op).strip()]
        modifier = node.modifier
        if modifier is not None:
            if modifier.fill_values.lhs is not None or modifier.fill_values.rhs is not None:
                raise BadQuery("fill() is not supported in a metric's query")
            if modifier.return_bool:
                words.append("bool")
            if modifier.matching is not None:
                on = modifier.matching.type == pp.LabelModifierType.Include
                words.append(f"{'on' if on else 'ignoring'} ({_labels(modifier.matching.labels)})")
            group = next((word for card, word in _GROUPS if card == modifier.card), None)
            if group is not None:
                words.append(f"{group} ({_labels(modifier.group_labels or ())})")
        return f"({self.text(node.lhs)}) {' '.join(words)} ({self.text(node.rhs)})"


def _operator(op: pp.MatchOp) -> str:
    return next(text for known, text in _OPS if known == op)


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    return repr(value)


def _label(name: str) -> str:
    return name if _PLAIN_LABEL.fullmatch(name) else quoted(name)


def _labels(names: Sequence[str]) -> str:
    return ", ".join(map(_label, names))


def _when(node: pp.VectorSelector | pp.SubqueryExpr) -> str:
    """The modifiers @ and offset. A fixed moment is refused before."""
    words = ""
    if node.at is not None:
        if node.at.type == pp.AtModifierType.At:
            raise BadQuery("@ with a fixed time reads the same moment for ever: leave it out")
        words += " @ start()" if node.at.type == pp.AtModifierType.Start else " @ end()"
    if node.offset is not None and node.offset:
        words += f" offset {duration(node.offset)}"
    return words
