"""What the story shows of a manifest is what stands there, whole."""

from __future__ import annotations

import pytest
import yaml

from mooring_dev import story_retraining
from mooring_dev.demo_samples import FOLDER
from mooring_dev.demo_store import example_file


@pytest.mark.parametrize("name", ["monitoring", "retraining"])
def test_a_part_of_the_spec_is_shown_as_it_is_written(name: str) -> None:
    path = example_file(FOLDER, "modeldeployment.yaml")

    shown = story_retraining._part(path, name)

    spec = yaml.safe_load(path.read_text())["spec"]
    assert yaml.safe_load(shown) == {name: spec[name]}
