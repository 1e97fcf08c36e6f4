"""Patterns are RE2's, as the collector matches them: the operator refuses what RE2 would refuse."""

from __future__ import annotations

import time

import orjson
import pytest

from mooring.core.drift.patterns import problem
from mooring_collector.errors import ConfigurationError
from mooring_collector.grid import Reference
from mooring_collector.settings import read_settings


def refused_by_the_collector(pattern: str) -> bool:
    features = [{"name": "city", "pattern": pattern}]
    try:
        read_settings(orjson.dumps({"features": features}), Reference())
    except ConfigurationError:
        return True
    return False


@pytest.mark.parametrize(
    "pattern",
    [
        r"\d{4}-\d{2}", r"\p{L}+", r"\pL\PN*", r"[\p{Lu}\d -]{3}", r"\x{41}", r"a\z", r"(?i)ab",
        r"a(?i)b", r"(?i:ab)+c", r"(?s-i:a.)", r"(?U)a+", r"(?<n>a)", r"(?P<n>a)", r"\Qa.b(\E",
        r"[[:alpha:]]+", r"[[:^digit:]x]", r"[]a]+", r"[^]\]]", r"[(?=]+", r"a\\(b)", "", "a|b",
        r"[\w-.]+", r"[\w-\.]+@x", r"[\d-z]", r"[\p{L}-x]", r"[\p{L}\-\x{20AC}]", r"[\x{41}-Z]",
        r"[\x{30}-9]", r"[z-\x{FF}]", r"[\x{0}-\x1f]", r"[\x{4E00}-\x{9FFF}]", r"\12", r"\123",
        r"^*", r"$*", r"\b*", r"()*", r"[[=a=]]", r"(|a)*", r"\pN", r"\p{Greek}", r"\p{^Greek}",
        r"[a-\x{7A}]", r"[^\x{00}-\x{7F}]", r"[ -\x{7E}]", r"\a\f\v", r"\_", r"\-", r"\A", r"\0",
        r"a{,2}", r"a{2", r"{", r"\C", r"[-a]", r"[a-]", r"[[a]", r"[a&&b]", r"a\Q+\E+",
        r"(?im)^a$", r"(?mi-s)a", r"(?P<x>a|b)+?", r"a??", r"a{2}?", r"\B", r"\08", r"[[:word:]]",
        r"(?i:a)(?-i:b)", "(" * 100 + ")" * 100, r".{0,1000}", r"[^[:^alpha:]x]", r"\\p{L}",
    ],
)  # fmt: skip
def test_what_re2_reads_is_a_pattern_whether_python_reads_it_or_not(pattern: str) -> None:
    assert not refused_by_the_collector(pattern)
    assert problem(pattern) == problem(pattern, built=True) == ""


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?=a)b", r"(?!a)b", r"(?<=a)b", r"(?<!a)b", r"(a)\1", r"a\Z", r"(?#c)a", r"\N{DIGIT ONE}",
        r"\u0041", "[a-z", "(", "*a", "a**", "\\", r"(?P<a>x)(?P=a)", "a++", "a*+", "a?+", "a{2}+",
        "(?x)a b", "(?a)a", "(?u)a", "(?L:a)", r"[\b]", r"[\z]", r"[\A]", r"[\B]", "a{1001}",
        r"\p{Foo}", "[[:foo:]]", "|*", "a|*", r"\Q\E*", r"\é", r"\x{110000}", r"\x{zz}", r"\h",
        r"\K", r"\G", r"\X", r"\e", r"\cA", r"\x4", "a{2,1}", "a{500}{3}", "(a{1000}){1000}",
        r"\R", "[z-a]", r"[a-\d]", "[]", "[^]", "(?>a)", "(?P>a)", "(?i", "(?P<a-b>a)",
        "x**", "(" * 1001,
    ],
)  # fmt: skip
def test_what_re2_does_not_read_is_none_though_python_may_read_it(pattern: str) -> None:
    assert refused_by_the_collector(pattern)
    assert problem(pattern) == problem(pattern, built=True) != ""


def test_what_is_wrong_is_said_in_re2_s_words() -> None:
    assert problem("(?=a)b") == "invalid perl operator: (?="
    assert problem(r"\é") == "invalid escape sequence: \\é"
    assert problem("\ud800") == problem("\ud800", built=True) == "it is no text of Unicode"


def test_a_pattern_that_would_be_too_large_is_found_by_who_takes_the_time_for_it() -> None:
    assert refused_by_the_collector(r"\pL{1000}")
    assert problem(r"\pL{1000}", built=True) == "pattern too large - compile failed"
    assert problem(r"\pL{1000}") == ""


def test_the_operator_spends_milliseconds_on_a_pattern_that_takes_seconds_to_build() -> None:
    patterns = [f"x{{0,{900 + n}}}" * 28 for n in range(20)]
    began = time.process_time()
    assert [problem(pattern) for pattern in patterns] == [""] * 20
    assert time.process_time() - began < 1
