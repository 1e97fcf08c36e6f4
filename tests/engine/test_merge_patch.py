"""The status patch: the smallest one that leads from what stands there to what should."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.engine.merge_patch import merge_patch

_values = st.recursive(
    st.one_of(st.booleans(), st.integers(-5, 5), st.text("ab", max_size=2)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("xyz", max_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)
_objects = st.dictionaries(st.text("xyz", max_size=1), _values, max_size=4)


def applied(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = applied(found.get(key), value)
    return found


@settings(max_examples=60, deadline=None)
@given(old=_objects, new=_objects)
def test_applying_the_patch_gives_the_new_value(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert applied(old, merge_patch(old, new)) == new


@settings(max_examples=30, deadline=None)
@given(value=_objects)
def test_nothing_to_change_is_an_empty_patch(value: dict[str, Any]) -> None:
    assert merge_patch(value, value) == {}


@settings(max_examples=60, deadline=None)
@given(old=_objects, new=_objects)
def test_what_did_not_change_is_not_in_the_patch(old: dict[str, Any], new: dict[str, Any]) -> None:
    patch = merge_patch(old, new)
    assert not [key for key in patch if key in old and key in new and old[key] == new[key]]


def test_lists_are_replaced_as_a_whole() -> None:
    assert merge_patch({"c": [1, 2]}, {"c": [1, 3]}) == {"c": [1, 3]}


def test_a_field_that_is_gone_is_taken_out() -> None:
    assert merge_patch({"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}) == {"a": {"b": None}}
