"""What a namespaced operator may do, as a Role that a test can grant in part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from mooring.core.kinds import CHILD_KINDS, OPTIONAL_KINDS

RULES: list[dict[str, list[str]]] = [
    {"apiGroups": ["mooring.dev"], "resources": ["modeldeployments", "modelruntimes"],
     "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["mooring.dev"], "resources": ["retrainingrequests"],
     "verbs": ["get", "list", "watch", "create", "delete"]},
    {"apiGroups": ["mooring.dev"],
     "resources": ["modeldeployments/status", "retrainingrequests/status"], "verbs": ["patch"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "watch", "create"]},
    {"apiGroups": [""], "resources": ["podtemplates"], "verbs": ["get"]},
    {"apiGroups": ["mooring.dev"], "resources": ["modeldeployments/finalizers"],
     "verbs": ["update"]},
    *(
        {"apiGroups": [kind.group], "resources": [kind.plural],
         "verbs": ["get", "list", "watch", "create", "patch", "delete"]}
        for kind in (*CHILD_KINDS, *OPTIONAL_KINDS)
    ),
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
]  # fmt: skip


def grant(namespace: str, user: str, rules: Sequence[Mapping[str, object]]) -> str:
    """A Role and its binding, for kubectl."""
    name = {"name": user, "namespace": namespace}
    group = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": name, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": name,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": user},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }
    return yaml.safe_dump_all([role, binding])
