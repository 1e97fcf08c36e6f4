"""What the parts of the administrator's settings are made of."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from mooring.adapters.prometheus_access import SERVICE_ACCOUNT_FOLDER
from mooring.api import parse_duration

SECOND = timedelta(seconds=1)


class Part(BaseModel):
    """Camel case in the file, and nothing unknown."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


def _duration(value: object) -> object:
    return value if isinstance(value, timedelta) else parse_duration(str(value))


def at_least_a_second(value: timedelta) -> timedelta:
    """For a validator; raises ValueError."""
    if value < SECOND:
        raise ValueError("must be at least 1s")
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration)]


def _mounted(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError("must be an absolute path")
    if value.is_relative_to(SERVICE_ACCOUNT_FOLDER):
        raise ValueError("the service account's token goes to the API server only")
    return value


MountedFile = Annotated[Path, AfterValidator(_mounted)]


class BasicAuth(Part):
    """Basic authentication."""

    username: str = Field(min_length=1, pattern=r"^[^:\x00-\x1f]+$")
    password_file: MountedFile
    """A mounted file; read again for every request."""
