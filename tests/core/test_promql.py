"""Free PromQL: what is refused and where, and that no accepted query reads another namespace."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import promql_parser as pp
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mooring.core.promql import PLACEHOLDERS, BadQuery, Bound, confine, prepare, selectors

BOUND = Bound("shop", "fraud", "qlghfpvpmm", timedelta(seconds=90))
OURS = 'namespace="shop"'


def refused(query: str) -> BadQuery:
    with pytest.raises(BadQuery) as caught:
        prepare(query, BOUND)
    return caught.value


# --- placeholders -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        (
            "sum(rate(errors_total{ {{ selector }} }[{{ window }}]))",
            f'sum (rate(errors_total{{{OURS},pod=~"fraud-qlghfpvpmm-[a-z0-9]+-[a-z0-9]+"}}[90s]))',
        ),
        (
            'up{cluster="{{revision}}", app="{{ deployment }}", ns="{{ namespace }}"}',
            f'up{{{OURS},cluster="qlghfpvpmm",app="fraud",ns="shop"}}',
        ),
    ],
)
def test_placeholders_are_filled_in(query: str, sent: str) -> None:
    assert prepare(query, BOUND).text == sent


def test_an_unknown_placeholder_is_refused_with_the_list() -> None:
    error = refused('up{a="{{ pod }}"}')
    assert error.position == 7
    assert all(name in error.message for name in PLACEHOLDERS)


@pytest.mark.parametrize(
    "query", ["up{{", "up}}", "up{a={{ }}", "{{ selector", "up{ {{ {{window}} }} }"]
)
def test_half_a_placeholder_is_refused(query: str) -> None:
    refused(query)


def test_the_label_names_of_the_scrape_configuration_are_used() -> None:
    other = Bound(
        "shop", "fraud", "abc", namespace_label="kubernetes_namespace", pod_label="pod_name"
    )
    assert prepare("up{ {{ selector }} }", other).text == (
        'up{kubernetes_namespace="shop",pod_name=~"fraud-abc-[a-z0-9]+-[a-z0-9]+"}'
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"namespace": 'shop"} or x{a="'},
        {"deployment": "a|b"},
        {"revision": ""},
        {"namespace_label": "a-b"},
        {"window": timedelta(0)},
    ],
)
def test_a_value_that_is_no_name_is_an_error_of_the_caller(wrong: dict[str, Any]) -> None:
    values = {"namespace": "shop", "deployment": "fraud", "revision": "abc", **wrong}
    with pytest.raises(ValueError, match=r"is not|at least"):
        Bound(**values)


# --- positions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "position", "words"),
    [
        ("", 0, "empty"),
        ("up{", 4, "ends too early"),
        ("sum(rate(x[5m])", 16, "unclosed left parenthesis"),
        ("rate(x)", 7, "expected type matrix"),
        ("x{a=b}", 5, "expected string"),
        ("foo bar", 5, "at 'bar'"),
        ("1 + nosuch(x)", 5, "nosuch"),
        ("sum(x)) + 1", 7, "right parenthesis"),
        ("x[5 minutes]", 5, "brackets"),
        ("x{a=~'('}", 6, "regex"),
        ("x / on x y", 8, "at 'x'"),
        ('x{a="b}', 5, "does not end"),
        ("x ? y", 3, "'?'"),
        ("avg_over_time(x[5m]) by (a)", 22, "at 'by'"),
        # Behind a placeholder, the place in what the user wrote.
        ("sum(x{ {{ selector }}, a=b})", 26, "expected string"),
        ("rate(x{ {{ selector }} })", 25, "expected type matrix"),
    ],
)
def test_a_broken_query_is_refused_where_it_breaks(query: str, position: int, words: str) -> None:
    error = refused(query)
    assert (error.position, words in error.message) == (position, True), str(error)


# --- namespaces ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("up", f"up{{{OURS}}}"),
        ('up{namespace="shop"}', f"up{{{OURS}}}"),
        ('up{namespace="shop",namespace="shop"}', f"up{{{OURS}}}"),
        ('{__name__=~".+"}', f'{{{OURS},__name__=~".+"}}'),
        ('{"my.metric"}', f'{{{OURS},__name__="my.metric"}}'),
        ("a / on (pod) group_left (x) b", f"(a{{{OURS}}}) / on (pod) group_left (x) (b{{{OURS}}})"),
        ("-sum without (a) (x)", f"-(sum without (a) (x{{{OURS}}}))"),
        (
            "y - max_over_time(rate(x[1m] offset 5m)[9m:3s])",
            f"(y{{{OURS}}}) - (max_over_time((rate(x{{{OURS}}}[60s] offset 300s))[540s:3s]))",
        ),
        ("rate(x[5m] @ end())", f"rate(x{{{OURS}}}[300s] @ end())"),
        ("topk(scalar(a), b)", f"topk (scalar(a{{{OURS}}}), b{{{OURS}}})"),
        ("absent(x)", f"absent(x{{{OURS}}})"),
        # It may call the result what it likes: it was read from its own namespace.
        (
            'label_replace(x, "namespace", "bank", "", "")',
            f'label_replace(x{{{OURS}}}, "namespace", "bank", "", "")',
        ),
        # A value that would end its string stays a value.
        ('x{a=`"} or secret{b="`}', f'x{{{OURS},a="\\"}} or secret{{b=\\""}}'),
        ('x{a="\\\\"}', f'x{{{OURS},a="\\\\"}}'),
        ('x{a="\\x00\\n"}', f'x{{{OURS},a="\\u0000\\n"}}'),
    ],
)
def test_every_selector_reads_the_own_namespace(query: str, sent: str) -> None:
    assert (
        prepare(query, BOUND).text.replace(
            f'__name__="my.metric",{OURS}', f'{OURS},__name__="my.metric"'
        )
        == sent
    )


@pytest.mark.parametrize(
    "query",
    [
        'x{namespace="bank"}',
        'x{"namespace"="bank"}',
        'x{namespace="shop",namespace="bank"}',
        'x{namespace=~"shop"}',
        'x{namespace=~".*",a="b"}',
        'x{namespace!="shop"}',
        'x{namespace=""}',
        'a + on () group_left () max_over_time(x{namespace="bank"}[5m])',
        'sum(x) + quantile(scalar(x{namespace="bank"}), x)',
        'x{a="b" or namespace="bank"}',
        'info(x, {namespace="bank"})',
        "info(x)",
    ],
)
def test_another_namespace_is_refused(query: str) -> None:
    refused(query)


def test_a_runtime_s_signals_are_confined_too() -> None:
    assert confine('sum by (pod) (requests_total{pod=~"a|b"})', "shop") == (
        f'sum by (pod) (requests_total{{{OURS},pod=~"a|b"}})'
    )
    for query in ('x{namespace="bank"}', "info(x)", "1", "rate(x[9d])"):
        with pytest.raises(BadQuery):
            confine(query, "shop")


# --- what could never be evidence, or costs too much ----------------------------------------------


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ('"text"', "string"),
        ("x[5m]", "range"),
        ("(sum(x)[5m:])", "range"),
        ("1", "no series"),
        ("vector(1)", "no series"),
        ("time() > bool 5", "no series"),
        ("x > 5", "bool"),
        ("x offset 1d", "present"),
        ("max_over_time(x[5m:] offset 1h)", "present"),
        ("x - x offset 9d", "offsets"),
        ("x - max_over_time(x[5m:] offset 8d) offset 1s", ""),
        ("x offset -5m", "future"),
        ("x @ 1600000000", "same moment"),
        ("rate(x[25h])", "range is longer"),
        ("max_over_time(x[1d:1s])", "steps"),
        ("max_over_time(max_over_time(x[1h:10s])[1h:10s])", "steps"),
        ("+".join(["x"] * 21), "selectors"),
        ("+".join(["1"] * 42) + "+x", "operators"),
        ("-" * 42 + "x", "operators"),
        ("(" * 21 + "x" + ")" * 21, "nested"),
        ("sum(" * 200_000 + "x" + ")" * 200_000, "characters"),
        ("x" * 4097, "characters"),
        ("x + fill (0) y", "fill"),
        ("x[1e300]", "too long"),
        ("rate(x[5m:1e12])", "too long"),
        ("x - x offset 1e300", "too long"),
        ("rate(x[9000000y])", "too long"),
    ],
)
def test_what_is_no_number_of_the_present_is_refused(query: str, words: str) -> None:
    assert words in refused(query).message


@pytest.mark.parametrize(
    ("query", "masks"),
    [
        ("sum(x) or vector(0)", True),
        ("vector(0) or x", True),
        ("absent(x)", True),
        ("x or y", False),
        ("sum(x) / sum(y)", False),
    ],
)
def test_a_query_that_answers_without_data_is_marked(query: str, masks: bool) -> None:
    assert prepare(query, BOUND).masks_missing is masks


# --- properties ---------------------------------------------------------------------------------

_STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_NAMES = st.sampled_from(["x", "up", "a:b", "namespace", "le", "job", "pod"])
_SPANS = st.sampled_from(["1m", "90s", "1h", "1500ms"])


def _go(text: str) -> str:
    """As PromQL of other people writes it, not as the printer does."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


_MATCHERS = st.builds(
    lambda name, op, value: f"{name}{op}{_go(value)}",
    st.sampled_from(["a", "le", "namespace", "job", '"x y"', '"namespace"']),
    st.sampled_from(["=", "!="]),
    st.one_of(_STRINGS, st.sampled_from(["shop", "bank", ""])),
)
_SELECTORS = st.builds(
    lambda name, matchers, offset: f"{name}{{{','.join(matchers)}}}{offset}",
    _NAMES,
    st.lists(_MATCHERS, max_size=3),
    st.sampled_from(["", "", "", " offset 1h", " @ end()"]),
)  # fmt: skip
_RANGES = st.builds(
    lambda name, matchers, span: f"{name}{{{','.join(matchers)}}}[{span}]",
    _NAMES, st.lists(_MATCHERS, max_size=2), _SPANS,
)  # fmt: skip


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds(
            lambda f, e: f"{f}({e})", st.sampled_from(["sum", "-", "abs", "absent", ""]), inner
        ),
        st.builds(lambda f, r: f"{f}({r})", st.sampled_from(["rate", "increase"]), _RANGES),
        st.builds(lambda e, s: f"max_over_time(({e})[{s}:30s])", inner, _SPANS),
        st.builds(
            lambda a, op, b: f"{a} {op} {b}",
            inner,
            st.sampled_from(
                ["+", "/", "^", "or", "and on (job)", "== bool", "* ignoring(le) group_left(z)"]
            ),
            inner,
        ),
        st.builds(
            lambda e, n: f'label_replace({e}, {_go(n)}, "$1", "le", "(.*)")', inner, _STRINGS
        ),
        st.builds(lambda e: f"topk by (namespace) (scalar({e}), {e})", inner),
        st.builds(lambda e: f'sum by (namespace, "x y") ({e})', inner),
    )


_QUERIES = st.recursive(
    st.one_of(_SELECTORS, st.just("vector(1)"), st.just("1")), _larger, max_leaves=6
)


def _shape(node: Any, namespace: str | None) -> Any:
    """A tree without brackets, and without its namespace matchers."""
    match node:
        case pp.ParenExpr():
            return _shape(node.expr, namespace)
        case pp.NumberLiteral() | pp.StringLiteral():
            return str(node.val)
        case pp.VectorSelector():
            matchers = [(m.name, str(m.op), m.value) for m in node.matchers.matchers
                        if m.name != "namespace"]  # fmt: skip
            if node.name:
                matchers.insert(0, ("__name__", "=", node.name))
            at = None if node.at is None else str(node.at.type)
            return ("selector", sorted(matchers), node.offset or timedelta(), at)
        case pp.MatrixSelector():
            return ("matrix", node.range, _shape(node.vector_selector, namespace))
        case pp.SubqueryExpr():
            return ("subquery", node.range, node.step, _shape(node.expr, namespace))
        case pp.Call():
            return (node.func.name, [_shape(one, namespace) for one in node.args])
        case pp.AggregateExpr():
            by = None if node.modifier is None else (str(node.modifier.type), node.modifier.labels)
            param = None if node.param is None else _shape(node.param, namespace)
            return (str(node.op), by, param, _shape(node.expr, namespace))
        case pp.UnaryExpr():
            return ("-", _shape(node.expr, namespace))
        case pp.BinaryExpr():
            m = node.modifier
            how = None if m is None else (str(m.card), m.return_bool, m.group_labels,
                                          m.matching and m.matching.labels)  # fmt: skip
            return (str(node.op), how, _shape(node.lhs, namespace), _shape(node.rhs, namespace))
    raise AssertionError(f"no shape for {type(node)}")


def assert_only_ours(text: str) -> None:
    found = list(selectors(pp.parse(text)))
    assert found
    for one in found:
        ours = [m for m in one.matchers.matchers if m.name == "namespace"]
        assert [(m.value, m.op == pp.MatchOp.Equal) for m in ours] == [("shop", True)], text
        assert not one.matchers.or_matchers


@given(_QUERIES)
@example('x{a="\\"} or y{b=\\""}')
@example('label_replace(x, "a\\"", "$1", "le", "(.*)")')
def test_what_is_accepted_asks_each_selector_for_the_own_namespace_and_means_the_same(
    query: str,
) -> None:
    try:
        sent = prepare(query, BOUND).text
    except BadQuery:
        return
    assert_only_ours(sent)
    assert _shape(pp.parse(sent), "shop") == _shape(pp.parse(query), None)
    # Text that is already bound is left as it is by a second time.
    assert prepare(sent, BOUND).text.replace("(", "").replace(")", "") == sent.replace(
        "(", ""
    ).replace(")", "")


_PIECES = (
    *(
        "x",
        "namespace",
        '"bank"',
        "'",
        '"',
        "`",
        "\\",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "=",
        "=~",
        ",",
    ),
    *("or", "and", "by", "on", "5m", "1", ":", "@", "offset", "#", "\n", " ", "rate", "sum", "-"),
    *("{{ selector }}", "{{ window }}", "{{", "\x00", "é", "\U0001f600", "start()", "1e9999"),
)


@given(
    st.one_of(st.lists(st.sampled_from(_PIECES), max_size=14).map("".join), st.text(max_size=40))
)
def test_any_text_is_either_refused_or_safe(query: str) -> None:
    position, sent = 0, ""
    try:
        sent = prepare(query, BOUND).text
    except BadQuery as error:
        position = error.position
    assert 0 <= position <= len(query) + 1
    if sent:
        assert_only_ours(sent)


@pytest.mark.parametrize(
    "query",
    ["+".join(["rate(x[5m])"] * 20) + "+1" * 20, "(" * 19 + "x" + ")" * 19],
)
def test_the_largest_query_that_is_allowed_is_bound_like_any_other(query: str) -> None:
    assert_only_ours(prepare(query, BOUND).text)
