"""One ModelDeployment as a person sees it: apply it, wait for it, read what it says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mooring_dev.cluster import Cluster
from mooring_dev.errors import DevError

RESOURCE = "modeldeployments.mooring.dev"
_LOOK_EVERY = 0.3


@dataclass(frozen=True)
class Model:
    """The ModelDeployment ``name``; it need not exist."""

    cluster: Cluster
    namespace: str
    name: str

    def apply(self, manifest: Mapping[str, Any]) -> None:
        """Apply ``manifest`` under this name and namespace."""
        wanted = json.loads(json.dumps(manifest))
        wanted["metadata"] = {**wanted["metadata"], "name": self.name, "namespace": self.namespace}
        self.cluster.kubectl("apply", "-f", "-", input=json.dumps(wanted))

    def patch(self, changes: Mapping[str, Any]) -> None:
        """Merge ``changes`` into the object."""
        self.kubectl("patch", RESOURCE, self.name, "--type=merge", "-p", json.dumps(changes))

    def delete(self) -> None:
        """Delete the object, and return when it and everything that it owned are gone."""
        self.kubectl("delete", RESOURCE, self.name, "--cascade=foreground", "--timeout=120s")

    def kubectl(self, *arguments: str) -> str:
        """Output of kubectl in the object's namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *arguments)

    def status(self) -> dict[str, Any]:
        """The status; empty while there is none or it is of an older spec."""
        found = json.loads(self.kubectl("get", RESOURCE, self.name, "-o", "json"))
        status: dict[str, Any] = found.get("status", {})
        if status.get("observedGeneration") != found["metadata"]["generation"]:
            return {}
        return status

    def wait(
        self, what: str, holds: Callable[[dict[str, Any]], bool], *, seconds: float = 90.0
    ) -> dict[str, Any]:
        """The first status of the present spec of which ``holds`` is true.

        Raises:
            DevError: it was not within ``seconds``: with what the status and the pods said last.
        """
        until = time.monotonic() + seconds
        status = self.status()
        while not (status and holds(status)):
            if time.monotonic() > until:
                raise DevError(
                    f"{self.name}: {what} did not come about within {seconds:.0f} s.\n"
                    f"{yaml.safe_dump(status)}\n{self.kubectl('get', 'pods', '-o', 'wide')}"
                )
            time.sleep(_LOOK_EVERY)
            status = self.status()
        return status

    def wait_ready(self, *, seconds: float = 90.0) -> dict[str, Any]:
        """The status once Ready is true of the present spec and nothing is under way."""
        return self.wait(
            "Ready",
            lambda status: is_true(status, "Ready") and not is_true(status, "Reconciling"),
            seconds=seconds,
        )

    def wait_serving(self, uri: str, *, seconds: float = 120.0) -> dict[str, Any]:
        """The status once all pods of the revision with the model at ``uri`` serve."""
        return self.wait(
            f"serving {uri}",
            lambda status: (
                status.get("stable", {}).get("modelUri") == uri and is_true(status, "Ready")
            ),
            seconds=seconds,
        )

    def wait_condition(self, kind: str, *, seconds: float = 90.0) -> dict[str, Any]:
        """The condition ``kind`` once it is true."""
        status = self.wait(kind, lambda status: is_true(status, kind), seconds=seconds)
        return condition(status, kind)


def condition(status: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The condition ``kind``, or an empty one."""
    for found in status.get("conditions", ()):
        if found["type"] == kind:
            return dict(found)
    return {}


def is_true(status: Mapping[str, Any], kind: str) -> bool:
    """Whether the condition ``kind`` holds."""
    return condition(status, kind).get("status") == "True"


def read_manifests(path: Path) -> list[dict[str, Any]]:
    """The objects in a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]
