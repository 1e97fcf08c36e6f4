"""What a runtime's template and its signals may be filled with."""

from __future__ import annotations

import pytest

from mooring.api import parse_runtime_template
from mooring.api.runtime_signals import RuntimeSignals
from mooring.core.model_uri import parse
from mooring.core.placeholders import UnknownPlaceholder, fill_signal
from mooring.core.render.revision import model_version


@pytest.mark.parametrize(
    ("uri", "version"),
    [
        ("s3://models/half_plus_two/00000123", "123"),
        ("s3://models/half_plus_two/123/", "123"),
        ("https://example.com/m/7?signature=8", "7"),
        ("pvc://models/half_plus_two/42", "42"),
        ("s3://models/fraud/v7", "1"),
        ("s3://models/fraud/7.tar.gz", "1"),
        ("s3://models/fraud/" + "9" * 19, "1"),
        ("s3://models/0", "0"),
        ("file:///models/fraud/42", "1"),
    ],
)
def test_a_models_version_is_the_number_that_its_uri_ends_in(uri: str, version: str) -> None:
    assert model_version(parse(uri)) == version


def test_a_signal_is_filled_for_some_pods_by_some_labels() -> None:
    query = (
        'sum by ({{ by }}, le) (a_bucket{code="200",{{selector}}}) '
        "/ sum by ({{by}}) (b{{{ selector }}})"
    )

    filled = fill_signal(query, selector='namespace="shop"', by="pod, revision")

    assert filled == (
        'sum by (pod, revision, le) (a_bucket{code="200",namespace="shop"}) '
        '/ sum by (pod, revision) (b{namespace="shop"})'
    )


def test_a_signal_knows_no_other_placeholder() -> None:
    with pytest.raises(UnknownPlaceholder):
        fill_signal("sum(a{{{ selector }}}) by ({{ model.name }})", selector="", by="pod")


def test_signals_are_pinned_as_they_stand_in_yaml() -> None:
    count = "sum by ({{ by }}) (a_total{{{ selector }}})"
    written = {
        "requests": count,
        "latency": {"unit": "microseconds", "sum": count, "count": count},
        "caveat": "A mean only.",
    }
    runtime = parse_runtime_template(
        {
            "formats": [{"name": "x"}],
            "image": "example.com/x:1",
            "ports": [{"name": "http", "containerPort": 80}],
            "metrics": {"port": "http"},
            "signals": written,
        },
        strict=True,
    )

    assert runtime.signals is not None
    assert runtime.signals.as_dict() == written
    assert RuntimeSignals.model_validate(written) == runtime.signals
