"""Quantities that mean the same get one text: the one that the API server gives back."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mooring.api.schema_types import quantity_value
from mooring.core.quantity import canonical
from mooring_dev.control_plane import ControlPlane

ORDINARY = (
    ("0", "0"),
    ("0m", "0"),
    ("0Gi", "0"),
    ("0.0", "0"),
    ("0.5", "500m"),
    (".5", "500m"),
    ("1.0", "1"),
    ("1.50", "1500m"),
    ("1000m", "1"),
    ("1500m", "1500m"),
    ("1000000u", "1"),
    ("1k", "1k"),
    ("1000", "1k"),
    ("1000k", "1M"),
    ("1024", "1024"),
    ("1500", "1500"),
    ("1024Mi", "1Gi"),
    ("1.0Gi", "1Gi"),
    ("1536Mi", "1536Mi"),
    ("1.5Gi", "1536Mi"),
    ("0.5Gi", "512Mi"),
    ("0.5Ki", "512"),
    ("0.1Ki", "102400m"),
    ("512Ki", "512Ki"),
    ("1Ki", "1Ki"),
    ("1.0001Ki", "1024103m"),
    ("128974848", "128974848"),
    ("129e6", "129e6"),
    ("129M", "129M"),
    ("1e3", "1e3"),
    ("1e2", "100"),
    ("1E4", "10e3"),
    ("1000e0", "1e3"),
    ("1.5e3", "1500"),
    ("1e-3", "1e-3"),
    ("1e21", "1e21"),
    ("0.0000000001", "1m"),
    ("123456n", "1m"),
    ("1.5m", "2m"),
    ("1.000000001", "1001m"),
    ("1Ei", "1Ei"),
    ("100E", "100E"),
    ("16Ei", "9223372036854775807"),
)
ODD = (("5.", "5"), ("+5", "5"), ("007", "7"), ("1.Gi", "1Gi"), ("1.1e1", "11"), ("-0", "0"))
"""Spellings that the API server keeps as they are."""

# Below eight exbibytes, which is the most that apimachinery keeps.
digits = st.integers(0, 10**6).map(str)
fractions = st.one_of(st.just(""), st.just("."), st.integers(0, 10**6).map(lambda n: f".{n:06}"))
suffixes = st.one_of(
    st.sampled_from(["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "Ti"]),
    st.integers(-6, 6).map(lambda power: f"e{power}"),
)
quantities = st.builds(lambda *parts: "".join(parts), digits, fractions, suffixes)


@pytest.mark.parametrize(("given_text", "expected"), [*ORDINARY, *ODD])
def test_each_form_has_its_canonical_text(given_text: str, expected: str) -> None:
    assert canonical(given_text) == expected


@pytest.mark.parametrize(
    ("number", "expected"), [(2, "2"), (0, "0"), (0.5, "500m"), (1e-7, "1m"), (1e21, "1000E")]
)
def test_numbers_are_taken_too(number: float, expected: str) -> None:
    assert canonical(number) == expected


@pytest.mark.parametrize(
    "text", ["", "m", ".", "1GB", "1 Gi", "1ki", "1K", "1e", "0x1", "-", "5\n"]
)
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 500m"):
        canonical(text)


@pytest.mark.parametrize("value", [True, None, []])
def test_what_is_neither_text_nor_number_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="write 500m"):
        canonical(value)  # type: ignore[arg-type]


@given(quantities)
def test_the_canonical_text_is_its_own_canonical_text(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text)


@given(quantities)
def test_the_value_stays_but_for_rounding_up_to_a_thousandth(text: str) -> None:
    difference = quantity_value(canonical(text)) - quantity_value(text)

    assert 0 <= difference * 1000 < 1


@given(st.integers(0, 2**40), st.sampled_from(["", "k", "Ki", "Mi"]))
def test_leading_zeros_and_signs_change_nothing(number: int, suffix: str) -> None:
    assert canonical(f"+00{number}{suffix}") == canonical(f"{number}{suffix}")


def read_back(plane: ControlPlane, texts: list[str]) -> list[str]:
    """What the API server makes of each text as a container's CPU request in a Deployment."""
    labels = {"app": "quantities"}
    containers = [
        {"name": f"c{index}", "image": "none", "resources": {"requests": {"cpu": text}}}
        for index, text in enumerate(texts)
    ]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "quantities", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }
    answer = plane.kubectl(
        "apply", "--server-side", "--dry-run=server", "--field-manager=test", "-o", "json",
        "-f", "-", input=json.dumps(deployment),
    )  # fmt: skip
    stored = json.loads(answer)["spec"]["template"]["spec"]["containers"]
    return [container["resources"]["requests"]["cpu"] for container in stored]


@pytest.mark.apiserver
def test_the_api_server_makes_the_canonical_text_of_ordinary_spellings(
    control_plane: ControlPlane,
) -> None:
    assert read_back(control_plane, [text for text, _ in ORDINARY]) == [
        expected for _, expected in ORDINARY
    ]


@pytest.mark.apiserver
@settings(
    max_examples=5,
    deadline=None,
    # A batch of a hundred is one call; shrinking it would be hundreds.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(quantities, min_size=100, max_size=100))
def test_the_api_server_leaves_a_canonical_text_as_it_is(
    control_plane: ControlPlane, texts: list[str]
) -> None:
    sent = [canonical(text) for text in texts]

    assert read_back(control_plane, sent) == sent
