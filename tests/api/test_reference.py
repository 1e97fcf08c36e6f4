"""The documentation says what the models say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mooring.api import crd, reference

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_the_page_is_what_the_models_say() -> None:
    assert list(reference.FILES.stale(DOCS / "reference")) == []


@pytest.mark.parametrize(
    "definition",
    [d for d in crd.DEFINITIONS if d.kind != "ClusterModelRuntime"],
    ids=lambda d: d.plural,
)
def test_every_field_has_a_row_and_every_rule_its_message(definition: crd.Definition) -> None:
    page = reference.page()

    def visit(schema: crd.Schema) -> None:
        for name, child in schema.get("properties", {}).items():
            if name not in ("apiVersion", "kind", "metadata", "spec", "status"):
                assert f"| `{name}`" in page
            visit(child)
        for part in {"items", "additionalProperties"} & schema.keys():
            visit(schema[part])
        for rule in schema.get("x-kubernetes-validations", ()):
            assert rule["message"].split(" {{")[0].split(" <")[0] in page

    visit(crd.structural_schema(definition.model))


def test_what_one_kind_shares_with_another_is_said_once() -> None:
    page = reference.page()

    assert "### ClusterModelRuntime `spec`" not in page
    assert "Its spec is that of a [ModelRuntime](#modelruntime-spec)." in page


def test_placeholders_and_angle_brackets_stay_readable() -> None:
    outside_code = re.sub(r"`[^`]*`", "", reference.page())

    assert "{{" not in outside_code
    assert not re.search(r"<(?!!--)", outside_code)


def test_the_examples_of_gitops_are_yaml() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "gitops.md").read_text(), re.DOTALL)

    assert len(blocks) == 4
    for block in blocks:
        assert yaml.safe_load(block)
