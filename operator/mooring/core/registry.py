"""Models by name: what a registry says of ``mlflow://model@alias``, and what is made of it.

An alias moves while spec stays as it is. So a revision's inputs name the *version*, and where its
bytes are: a version that the alias has come to name is another revision, which rolls out like any
other, and one that it names again is the revision that there is already. The registry is asked by
the engine; here its answer is a value. Which version was named last stands in that revision's
record, so that a registry that is away, and a restart meanwhile, change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mooring.api import ModelDeployment
from mooring.core.named import Named
from mooring.core.render.revision import CannotRender
from mooring.core.revision import History, Revision, base_inputs

SCHEME = "mlflow://"
#: Where a registry may send a fetcher. What else MLflow knows (its server's own disk, a claim's
#: path, a web server) is not for a pod to read, or would be shown the Secret of another store.
_SOURCES = re.compile(
    r"(s3://[A-Za-z0-9][A-Za-z0-9._-]*/\S+"
    r"|gs://[A-Za-z0-9][A-Za-z0-9._-]*/\S+"
    r"|abfss?://[$a-z0-9][a-z0-9-]*@[a-z0-9]+[.](blob|dfs)[.]core[.]"
    r"(windows[.]net|chinacloudapi[.]cn|usgovcloudapi[.]net)/\S+"
    r"|mlflow-artifacts:/[^/\s]\S*)"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: A tag of a model version that says what its bytes must be.
DIGEST_TAG = "mooring.dev/digest"
_LONGEST = 2048

ASKING = "ResolvingModel"
UNAVAILABLE = "RegistryUnavailable"
NOT_CONFIGURED = "RegistryNotConfigured"
NOT_FOUND = "ModelNotInRegistry"
UNREADABLE = "ModelNotReadable"


@dataclass(frozen=True, slots=True)
class Registered:
    """A version of a model as the registry has it; ``digest`` is empty where it knows none."""

    name: str
    version: str
    source: str
    digest: str = ""

    @property
    def uri(self) -> str:
        """The version by its own name, which never moves."""
        return f"{SCHEME}{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class NotRegistered:
    """Why a name could not be followed. ``lasting``: the registry has answered, and asking again
    will not help; somebody has to act.
    """

    reason: str
    message: str
    lasting: bool = True


Answer = Registered | NotRegistered


@dataclass(frozen=True, slots=True)
class Resolution:
    """What spec.model.uri stands for, as far as it could be followed.

    ``model`` is what stands in the inputs in place of spec's fields: uri, source and perhaps a
    digest; None where nobody knows a version yet. ``trouble`` is why the registry could not be
    followed; None where it was, and while it has not answered yet.
    """

    uri: str
    model: Mapping[str, str] | None
    trouble: NotRegistered | None = None
    asked: bool = True

    @property
    def needed(self) -> bool:
        """Whether it is a name that only a registry can follow."""
        return self.uri.startswith(SCHEME)

    @property
    def known(self) -> bool:
        """Whether it is clear which model is asked for."""
        return self.model is not None or not self.needed

    @property
    def waiting(self) -> bool:
        """Whether it may come about by itself."""
        return self.trouble is None or not self.trouble.lasting

    @property
    def blocked(self) -> CannotRender | None:
        """What stands in the way of the revision asked for, or of following its name further."""
        if self.trouble is not None and (self.model is None or self.trouble.lasting):
            return CannotRender(self.trouble.reason, self.trouble.message)
        if not self.known:
            return CannotRender(ASKING, f"the model registry is being asked for {self.uri}")
        return None

    def applied(self, resource: ModelDeployment) -> ModelDeployment:
        """The resource as if its spec named the version. A digest in spec goes before the
        registry's.
        """
        if self.model is None:
            return resource
        digest = resource.spec.model.digest or self.model.get("digest")
        model = resource.spec.model.model_copy(update={"uri": self.model["uri"], "digest": digest})
        spec = resource.spec.model_copy(update={"model": model})
        return resource.model_copy(update={"spec": spec})

    def pinned(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The canonical inputs of :meth:`applied`, with where the bytes are."""
        if self.model is None:
            return dict(inputs)
        return {**inputs, "model": {**inputs["model"], "source": self.model["source"]}}


def followed(uri: str, answer: Answer | None, history: History) -> Resolution:
    """What a spec.model.uri stands for.

    ``answer`` is None while nobody has answered. Then, and while the registry is away, what it
    named last holds.
    """
    if not uri.startswith(SCHEME):
        return Resolution(uri, None)
    if isinstance(answer, Registered):
        model = {"uri": answer.uri, "source": answer.source}
        return Resolution(uri, model | ({"digest": answer.digest} if answer.digest else {}))
    last = named_last(history, uri)
    return Resolution(uri, _of_record(last), answer, asked=answer is not None)


def named_last(history: History, uri: str | None = None) -> Revision | None:
    """The record of the version that a registry has named last (for this URI)."""
    named = [
        (r.named.order, r)
        for r in history.revisions
        if r.named is not None and uri in (None, r.named.uri)
    ]
    return max(named, key=lambda pair: pair[0], default=(0, None))[1]


def with_name(
    history: History, inputs: Mapping[str, Any], resolution: Resolution
) -> tuple[History, Revision | None]:
    """The history with a mark on the record of these inputs, and that record: the registry names
    it now. One write when a name has moved, and none while it stays.
    """
    record = history.target(inputs)
    if record is None or resolution.model is None:
        return history, record
    last = named_last(history)
    order = last.named.order if last is not None and last.named is not None else 0
    named = Named(resolution.uri, order, resolution.model.get("digest", ""))
    if last is not None and last.hash == record.hash and record.named == named:
        return history, record
    marked = replace(record, named=replace(named, order=order + 1))
    return history.with_revision(marked), marked


def _of_record(record: Revision | None) -> Mapping[str, str] | None:
    if record is None or record.named is None:
        return None
    model = base_inputs(record.inputs)["model"]
    found = {key: str(model[key]) for key in ("uri", "source") if model.get(key)}
    if "source" not in found:
        return None
    return found | ({"digest": record.named.digest} if record.named.digest else {})


def registered(name: str, version: str, location: str, tags: Mapping[str, str]) -> Answer:
    """The answer that a registry's fields amount to: its location in the fetcher's spelling."""
    what = f"version {version} of {name}"
    source = re.sub(
        r"^wasbs?://([^@/]+)@([a-z0-9]+)[.]blob[.]", r"abfss://\1@\2.blob.", location.strip()
    )
    digest = tags.get(DIGEST_TAG, "").strip()
    if digest and not _DIGEST.fullmatch(digest):
        return NotRegistered(
            UNREADABLE,
            f"{what} has a tag {DIGEST_TAG} that is not sha256: and 64 lower-case hexadecimal "
            "digits: correct it or remove it",
        )
    climbs = any(part in (".", "..") for part in source.split("/"))
    if len(source) > _LONGEST or climbs or not _SOURCES.fullmatch(source):
        shown = location if len(location) <= 200 else location[:199] + "…"
        return NotRegistered(
            UNREADABLE,
            f"{what} is at {shown!r}, which pods cannot fetch from: let MLflow keep artifacts in "
            "s3://, gs:// or wasbs://, or behind its tracking server (mlflow-artifacts:)",
        )
    return Registered(name, version, source, digest)
