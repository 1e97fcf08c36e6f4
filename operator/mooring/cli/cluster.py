"""The cluster as the command line sees it: a user's kubeconfig, raw JSON, errors with a way out.

The client library finds the cluster and the credentials and keeps the connections; its typed models
are not used. Everything that can go wrong on the way becomes a :class:`Failure`.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from mooring.cli.failure import (
    FAILED,
    NO_CONFIGURATION,
    NOT_ALLOWED,
    NOT_FOUND,
    NOT_INSTALLED,
    UNREACHABLE,
    USAGE,
    Failure,
)
from mooring.cli.words import plain
from mooring.core import kinds
from mooring.core.kinds import Kind

if TYPE_CHECKING:
    from kubernetes.client import Configuration
    from kubernetes.client.rest import RESTClientObject
    from urllib3 import BaseHTTPResponse

Json = dict[str, Any]

FIELD_MANAGER = "mooring-cli"
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
#: The server ends a watch after this time, and a connection that is silent for longer is dead:
#: bookmarks are not promised, so nothing else would tell.
WATCH_SECONDS = 25
_WATCH_READ_SECONDS = WATCH_SECONDS + 10.0
_CHUNK = 500
#: Who comes without credentials (or with a login plugin that failed) is this user.
_ANONYMOUS = '"system:anonymous"'
_TLS = "TLS failed"
#: What may stand in a path: names of Kubernetes are narrower, and that is the API server's affair.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class Target:
    """Which cluster and namespace: as given by options; empty means as the kubeconfig has it."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""


class Cluster:
    """Requests as raw JSON, as the user of the kubeconfig. May be used from several threads."""

    def __init__(self, configuration: Configuration, namespace: str, context: str) -> None:
        self.namespace = namespace
        self.context = context
        self._configuration = configuration
        self._client = _rest_client(configuration)
        # Renewing credentials runs a program or asks a server: not twice at once.
        self._lock = threading.Lock()

    @property
    def server(self) -> str:
        """The address of the API server."""
        return str(self._configuration.host)

    def get(self, kind: Kind, name: str) -> Json:
        """One object of the namespace; raises Failure NOT_FOUND naming near ones."""
        try:
            return self._json("GET", self._path(kind, name))
        except _Answer as answer:
            if answer.status == 404 and answer.of_object:
                raise self._not_found(kind, name) from answer
            raise self._failure(answer, f"get {kind.plural}", kind) from answer

    def objects(
        self,
        kind: Kind,
        *,
        everywhere: bool = False,
        labels: str = "",
        fields: str = "",
    ) -> tuple[list[Json], str]:
        """All objects of the namespace (or of all), and the version to watch from."""
        query = {"limit": str(_CHUNK)}
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        path = kind.path(None if everywhere else self.namespace)
        found: list[Json] = []
        while True:
            try:
                page = self._json("GET", path, query=query)
            except _Answer as answer:
                raise self._failure(answer, f"list {kind.plural}", kind) from answer
            found += page.get("items") or []
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                return found, str(meta.get("resourceVersion") or "")
            query["continue"] = meta["continue"]

    def annotate(self, kind: Kind, name: str, annotations: Mapping[str, str]) -> Json:
        """Sets annotations of one object and touches nothing else of it."""
        body = {"metadata": {"annotations": dict(annotations)}}
        query = {"fieldManager": FIELD_MANAGER}
        try:
            return self._json("PATCH", self._path(kind, name), query=query, body=body)
        except _Answer as answer:
            if answer.status == 404 and answer.of_object:
                raise self._not_found(kind, name) from answer
            raise self._failure(answer, f"patch {kind.plural}", kind) from answer

    def apply(self, kind: Kind, body: Json, manager: str) -> Json:
        """Server-side apply of one whole object, as this field manager, which wins conflicts."""
        path = self._path(kind, body["metadata"]["name"])
        query = {"fieldManager": manager, "force": "true"}
        try:
            return self._json("PATCH", path, query=query, body=body, content_type=_APPLY)
        except _Answer as answer:
            raise self._failure(answer, f"apply {kind.plural}", kind) from answer

    def version(self) -> Json:
        """What the API server says of itself."""
        try:
            return self._json("GET", "/version")
        except _Answer as answer:
            raise self._failure(answer, "get /version", None) from answer

    def installed(self) -> bool:
        """Whether the API server knows the kinds of this version of Mooring."""
        try:
            self._json("GET", f"/apis/{kinds.MODEL_DEPLOYMENT.api_version}")
        except _Answer as answer:
            if answer.status == 404:
                return False
            raise self._failure(answer, "look for Mooring's kinds", None) from answer
        return True

    def watch(
        self, kind: Kind, version: str, *, labels: str = "", fields: str = ""
    ) -> Iterator[tuple[str, Json]]:
        """Changes since this version as (type, object), until the server ends the watch.

        Raises Failure when the connection drops; the caller lists again and watches on.
        """
        query = {
            "watch": "1",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
            **({"labelSelector": labels} if labels else {}),
            **({"fieldSelector": fields} if fields else {}),
        }
        path = kind.path(self.namespace)
        try:
            for event in self._lines(path, query):
                if event["type"] == "ERROR":  # the version is too old: list again
                    return
                yield event["type"], event["object"]
        except _Answer as answer:
            if answer.status != 410:
                raise self._failure(answer, f"watch {kind.plural}", kind) from answer

    def names(self, kind: Kind, labels: str = "") -> list[str]:
        """Names in the namespace, for hints and completion; none when they may not be listed."""
        with contextlib.suppress(Failure):
            return [obj["metadata"]["name"] for obj in self.objects(kind, labels=labels)[0]]
        return []

    def _path(self, kind: Kind, name: str) -> str:
        """Of one object; raises Failure for a name that would become another path."""
        if not _NAME.fullmatch(name):
            raise Failure(f"{name!r} cannot be the name of a {kind.name}", USAGE)
        return kind.path(self.namespace, name)

    def _lines(self, path: str, query: Mapping[str, str]) -> Iterator[Json]:
        response = self._send("GET", path, query, None, read_seconds=_WATCH_READ_SECONDS)
        try:
            with _as_unreachable(self.server):
                if response.status != 200:
                    raise _answer(response.status, response.data)
                rest = b""
                for chunk in response.stream(amt=None, decode_content=True):
                    *lines, rest = (rest + chunk).split(b"\n")
                    yield from (_event(line) for line in lines if line.strip())
        finally:
            response.close()

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = _MERGE,
    ) -> Json:
        response = self._send(method, path, query or {}, body, content_type=content_type)
        with _as_unreachable(self.server):
            text = response.data
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if response.status >= 300 or not isinstance(value, dict):
            raise _answer(response.status, text)
        return value

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Json | None,
        read_seconds: float = _READ_SECONDS,
        content_type: str = _MERGE,
    ) -> BaseHTTPResponse:
        import urllib3

        headers = {"Accept": "application/json", "User-Agent": "kubectl-mooring"}
        if body is not None:
            headers["Content-Type"] = content_type
        with self._lock:
            headers |= _authorization(self._configuration)
        with _as_unreachable(self.server):
            return self._client.pool_manager.request(
                method,
                self.server + path + (f"?{urlencode(query)}" if query else ""),
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds),
                retries=False,
                preload_content=False,
            )

    def _not_found(self, kind: Kind, name: str) -> Failure:
        known = self.names(kind)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        text = f"there is no {kind.name} {name} in namespace {self.namespace}"
        if near:
            return Failure(f"{text}: did you mean {' or '.join(near)}?", NOT_FOUND)
        elsewhere = self._namespaces_with(kind, name)
        if elsewhere:
            return Failure(f"{text}; there is one in {', '.join(elsewhere)}: use -n", NOT_FOUND)
        if known:
            shown = ", ".join(sorted(known)[:10])
            return Failure(f"{text}; there are: {shown}", NOT_FOUND)
        return Failure(f"{text}, nor any other: choose the namespace with -n", NOT_FOUND)

    def _namespaces_with(self, kind: Kind, name: str) -> list[str]:
        with contextlib.suppress(Failure):
            found, _ = self.objects(kind, everywhere=True, fields=f"metadata.name={name}")
            return sorted(obj["metadata"]["namespace"] for obj in found)[:5]
        return []

    def _failure(self, answer: _Answer, doing: str, kind: Kind | None) -> Failure:
        if answer.status == 401 or (answer.status == 403 and _ANONYMOUS in str(answer)):
            return Failure(
                f"the API server {self.server} does not know you: log in again, or choose another "
                "user with --context",
                NOT_ALLOWED,
            )
        if answer.status == 403:
            return Failure(
                f"you may not {doing} here: {answer}; ask your administrator for that right",
                NOT_ALLOWED,
            )
        if answer.status == 404 and kind is not None and kind.group == kinds.GROUP:
            return Failure(
                f"Mooring is not installed in this cluster ({self.server} knows no {kind.name}): "
                "install its chart, or choose another cluster with --context",
                NOT_INSTALLED,
            )
        if answer.status == 0 or answer.status >= 500 or answer.status == 429:
            return Failure(
                f"the API server {self.server} cannot serve this now (HTTP {answer.status}: "
                f"{answer}): try again",
                UNREACHABLE,
            )
        return Failure(f"cannot {doing}: {answer} (HTTP {answer.status})", FAILED)


class _Answer(Exception):
    """An answer of the API server other than success; ``of_object``: it names what is missing."""

    def __init__(self, status: int, message: str, of_object: bool) -> None:
        super().__init__(message)
        self.status = status
        self.of_object = of_object


def _event(line: bytes) -> Json:
    try:
        event = json.loads(line)
        return {"type": str(event["type"]), "object": event["object"]}
    except (ValueError, KeyError, TypeError) as error:
        raise Failure("the API server sent what is no watch event", UNREACHABLE) from error


def _answer(status: int, text: bytes) -> _Answer:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return _Answer(status, plain(text[:200].decode(errors="replace")) or "no reason", False)
    named = bool((value.get("details") or {}).get("name"))
    return _Answer(status, plain(value.get("message") or value.get("reason") or "no reason"), named)


@contextlib.contextmanager
def _as_unreachable(server: str) -> Iterator[None]:
    """Turns every error below HTTP into one sentence."""
    import urllib3.exceptions

    try:
        yield
    except (urllib3.exceptions.HTTPError, OSError) as error:
        cause = _cause(error)
        hint = (
            "see certificate-authority in the kubeconfig"
            if cause.startswith(_TLS)
            else "is the cluster running, and is --context the right one?"
        )
        raise Failure(
            f"the API server {server} cannot be reached: {cause}; {hint}", UNREACHABLE
        ) from error


def _cause(error: BaseException) -> str:
    """The innermost reason, without the names of Python objects."""
    import urllib3.exceptions as errors

    if isinstance(error, errors.MaxRetryError) and error.reason is not None:
        return _cause(error.reason)
    if isinstance(error, errors.NameResolutionError):
        return "its name cannot be resolved"
    if isinstance(error, errors.SSLError):
        return f"{_TLS} ({plain(str(error.args[0]))})"
    inner = error.__cause__ or error.__context__
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror.lower()
    if isinstance(error, errors.TimeoutError | TimeoutError):
        return "no answer in time"
    return plain(str(error)) or type(error).__name__


def _rest_client(configuration: Configuration) -> RESTClientObject:
    from kubernetes.client.rest import RESTClientObject

    return RESTClientObject(configuration)


def _authorization(configuration: Configuration) -> dict[str, str]:
    try:
        token = configuration.auth_settings().get("BearerToken")
    except Exception as error:  # credential plugins of any make are run here
        raise Failure(
            f"your credentials cannot be renewed: {plain(str(error)) or type(error).__name__}; "
            "log in again",
            NOT_ALLOWED,
        ) from error
    if token and token["value"]:
        return {"Authorization": str(token["value"])}
    if configuration.username:
        return {"Authorization": str(configuration.get_basic_auth_token())}
    return {}


def connect(target: Target) -> Cluster:
    """The cluster that the options, the environment or the pod name. Asks it nothing yet.

    Raises:
        Failure: NO_CONFIGURATION when there is no kubeconfig, or none that can be read; USAGE for a
            namespace that none can be called.
    """
    from kubernetes.client import Configuration

    if target.namespace and not _NAME.fullmatch(target.namespace):
        raise Failure(f"{target.namespace!r} cannot be the name of a namespace", USAGE)
    configuration = Configuration()
    paths = target.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    if any(Path(path).expanduser().exists() for path in paths.split(os.pathsep) if path):
        namespace, context = _load_file(paths, target.context, configuration)
        return Cluster(configuration, target.namespace or namespace or "default", context)
    if target.context or target.kubeconfig or not _load_pod(configuration):
        raise Failure(
            f"there is no kubeconfig at {paths}: name one with --kubeconfig or KUBECONFIG",
            NO_CONFIGURATION,
        )
    namespace = _IN_CLUSTER_NAMESPACE.read_text() if _IN_CLUSTER_NAMESPACE.exists() else ""
    return Cluster(configuration, target.namespace or namespace or "default", "in-cluster")


def _load_pod(configuration: Configuration) -> bool:
    from kubernetes.config import ConfigException, load_incluster_config

    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException:
        return False
    return True


def _load_file(paths: str, context: str, configuration: Configuration) -> tuple[str, str]:
    """Fills the configuration; returns the context's namespace and name."""
    from kubernetes.config import ConfigException
    from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger
    from yaml import YAMLError

    try:
        merged = KubeConfigMerger(paths).config  # type: ignore[no-untyped-call]
        _check_context({} if merged is None else merged.value, context, paths)
        loader = KubeConfigLoader(  # type: ignore[no-untyped-call]
            config_dict=merged, active_context=context or None, config_base_path=None
        )
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        current = loader.current_context
    except (ConfigException, YAMLError, OSError, KeyError, TypeError, ValueError) as error:
        raise Failure(
            f"the kubeconfig {paths} cannot be used: {plain(str(error))}; see kubectl config view",
            NO_CONFIGURATION,
        ) from error
    return str((current.get("context") or {}).get("namespace") or ""), str(current["name"])


def _check_context(merged: Mapping[str, Any], context: str, paths: str) -> None:
    known = _contexts(merged.get("contexts") or ())
    if not context and not merged.get("current-context"):
        raise Failure(
            f"the kubeconfig {paths} has no current context: choose one with --context "
            f"({', '.join(known) or 'there is none'})",
            NO_CONFIGURATION,
        )
    if context and context not in known:
        near = difflib.get_close_matches(context, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known) or 'none'}"
        raise Failure(f"the kubeconfig {paths} has no context {context}: {hint}", NO_CONFIGURATION)


def _contexts(rows: Sequence[Any]) -> list[str]:
    """Names of contexts; the client library wraps each of them."""
    found = (getattr(row, "value", row) for row in rows)
    return [str(row["name"]) for row in found if isinstance(row, dict) and row.get("name")]
