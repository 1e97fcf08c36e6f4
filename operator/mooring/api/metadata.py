"""The part of Kubernetes' object metadata that programs here read."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from mooring.api.schema_types import ApiModel


class ObjectMeta(ApiModel):
    """Standard object metadata; fields that nothing here reads are left out."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", alias_generator=to_camel)

    name: Annotated[str, Field(min_length=1)]
    """Name of the object, unique for its kind in the namespace."""
    namespace: str | None = None
    """Namespace of the object."""
    uid: str | None = None
    """Identity of the object over its life."""
    generation: int | None = None
    """Counts changes of spec."""
    resource_version: str | None = None
    """Version of the object as stored."""
    labels: dict[str, str] | None = None
    """Labels of the object."""
    annotations: dict[str, str] | None = None
    """Annotations of the object."""
