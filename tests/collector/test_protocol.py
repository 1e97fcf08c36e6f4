"""The generated messages are those of the .proto, and its numbers are Envoy's."""

from __future__ import annotations

import runpy
from pathlib import Path

from mooring_collector import external_processing_pb2 as pb

COMPONENT = Path(__file__).parents[2] / "components" / "collector"


def test_the_generated_messages_are_up_to_date() -> None:
    tool = runpy.run_path(str(COMPONENT / "tools" / "generate_messages.py"))
    for name, content in tool["generate"]().items():
        assert (COMPONENT / "mooring_collector" / name).read_text() == content, name


def test_the_field_numbers_are_those_of_envoys_protocol() -> None:
    def numbers(message: object) -> dict[str, int]:
        return {field.name: field.number for field in message.DESCRIPTOR.fields}  # type: ignore[attr-defined]

    request = {"request_body": 4, "response_body": 5, "attributes": 9}
    assert numbers(pb.ProcessingRequest) == request
    assert numbers(pb.HttpBody) == {"body": 1, "end_of_stream": 2}
    assert pb.DESCRIPTOR.package == "envoy.service.ext_proc.v3"
