"""Patterns are RE2's, as the collector matches them: the operator refuses what RE2 would refuse."""

from __future__ import annotations

import pytest
import re2  # type: ignore[import-untyped]

from mooring.core.drift.patterns import problem


def known_to_re2(pattern: str) -> bool:
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error:
        return False
    return True


@pytest.mark.parametrize(
    "pattern",
    [
        r"\d{4}-\d{2}", r"\p{L}+", r"\pL\PN*", r"[\p{Lu}\d -]{3}", r"\x{41}", r"a\z", r"(?i)ab",
        r"a(?i)b", r"(?i:ab)+c", r"(?s-i:a.)", r"(?U)a+", r"(?<n>a)", r"(?P<n>a)", r"\Qa.b(\E",
        r"[[:alpha:]]+", r"[[:^digit:]x]", r"[]a]+", r"[^]\]]", r"[(?=]+", r"a\\(b)", "", "a|b",
    ],
)  # fmt: skip
def test_what_re2_reads_is_a_pattern_whether_python_reads_it_or_not(pattern: str) -> None:
    assert known_to_re2(pattern)
    assert problem(pattern) == ""


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?=a)b", r"(?!a)b", r"(?<=a)b", r"(?<!a)b", r"(a)\1", r"a\Z", r"(?#c)a", r"\N{DIGIT ONE}",
        r"\u0041", "[a-z", "(", "*a", "a**", "\\",
    ],
)  # fmt: skip
def test_what_re2_does_not_read_is_none_though_python_may_read_it(pattern: str) -> None:
    assert not known_to_re2(pattern)
    assert problem(pattern)


def test_what_is_missing_in_re2_is_named() -> None:
    assert problem(r"(?=a)b") == "RE2 has no (?="
