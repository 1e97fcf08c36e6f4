"""The hf store: a repository of the Hugging Face Hub, or of a server that speaks its API.

A revision is resolved to its commit at each listing, and files are asked for at that commit, so
that a branch that moves under a run is seen, and never mixed. Of large files the Hub knows the
sha256; what arrives is held against it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote, urljoin

from mooring_fetcher.body import HttpBody
from mooring_fetcher.credentials import Credentials
from mooring_fetcher.failure import Changed, PermanentFailure
from mooring_fetcher.objects import pages
from mooring_fetcher.store import Listing, RemoteFile, size_of
from mooring_fetcher.uri import ModelUri
from mooring_fetcher.web import Answer, Web, origin, refuse_plain, rest_of

ENDPOINT = "https://huggingface.co"
T = TypeVar("T")

_COMMIT = re.compile(r"^[0-9a-f]{40,64}$")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')


class HfStore:
    """Implements :class:`mooring_fetcher.store.Store`."""

    def __init__(self, uri: ModelUri, credentials: Credentials) -> None:
        self._uri = uri
        self._credentials = credentials
        self._endpoint = credentials.endpoint("HF_ENDPOINT") or ENDPOINT
        token = credentials.get("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "token")
        self._private = {"Authorization": f"Bearer {token}"} if token else {}
        if token:
            refuse_plain(self._endpoint, credentials.shown)
        self._web = Web(ca_file=credentials.ca_file(), shown=credentials.shown)
        self._revision = uri.qualifier or "main"
        self._commit = ""

    def list(self, max_files: int) -> Listing:
        self._commit = self._resolved()
        path = self._uri.path.rstrip("/")
        one = self._one(path) if path else None
        if one is not None and path == self._uri.path:
            return Listing(True, (one,))
        start = (
            f"{self._api()}/tree/{self._commit}{quote('/' + path) if path else ''}?recursive=true"
        )
        inside = f"{path}/" if path else ""

        def page(url: str) -> tuple[Sequence[RemoteFile], str]:
            answer = self._ok(self._web.ask(url or start, self._private))
            return self._read(answer, lambda held: _files(held, inside)), self._next(answer)

        found = pages(page, max_files)
        return Listing(False, tuple(sorted(found, key=lambda file: file.path)))

    def open(self, file: RemoteFile, offset: int) -> HttpBody:
        url = f"{self._endpoint}/{self._uri.host}/resolve/{self._commit}/{quote(file.key)}"
        # The commit fixes the bytes, so no condition is needed for the rest of them.
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        answer = self._web.follow(url, headers | self._private, self._uri.shown)
        if answer.status == 404:
            answer.close()
            raise Changed
        return rest_of(self._ok(answer), file, offset, self._uri.shown)

    def close(self) -> None:
        self._web.close()

    def _api(self) -> str:
        return f"{self._endpoint}/api/models/{self._uri.host}"

    def _resolved(self) -> str:
        url = f"{self._api()}/revision/{quote(self._revision, safe='')}"
        answer = self._ok(self._web.ask(url, self._private))
        commit = self._read(answer, lambda held: str(held["sha"]))
        if not _COMMIT.match(commit):
            raise self._no_hub()
        return commit

    def _one(self, path: str) -> RemoteFile | None:
        """The file at a path of the repository; None for a folder."""
        answer = self._web.ask(
            f"{self._api()}/paths-info/{self._commit}",
            {"Content-Type": "application/json", **self._private},
            method="POST",
            body=json.dumps({"paths": [path]}).encode(),
        )
        there, files = self._read(self._ok(answer), lambda held: (bool(held), _files(held, "")))
        if not there:
            raise PermanentFailure(
                f"{self._uri.shown} names nothing: the repository {self._uri.host} has no {path!a} "
                f"at revision {self._revision}; correct the path or the revision."
            )
        return replace(files[0], path=path.rsplit("/", 1)[-1]) if files else None

    def _next(self, answer: Answer) -> str:
        match = _NEXT.search(answer.headers.get("Link", ""))
        url = urljoin(answer.url, match[1]) if match else ""
        if url and origin(url) != origin(self._endpoint):
            # The token would go along.
            raise PermanentFailure(
                f"{self._endpoint} continues its listing at another host: check HF_ENDPOINT."
            )
        return url

    def _read(self, answer: Answer, parse: Callable[[Any], T]) -> T:
        """What the answer's JSON says."""
        try:
            return parse(json.loads(answer.read()))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise self._no_hub() from None

    def _no_hub(self) -> PermanentFailure:
        return PermanentFailure(
            f"{self._endpoint} does not answer as the Hugging Face Hub does: check HF_ENDPOINT in "
            "the Secret."
        )

    def _ok(self, answer: Answer) -> Answer:
        """The answer, if it is one that can be used; else raises what its status means."""
        return answer.usable(f"{self._uri.shown}: {self._endpoint}", self._meaning)

    def _meaning(self, answer: Answer) -> PermanentFailure:
        code = answer.headers.get("X-Error-Code", "")
        at = f"{self._endpoint} answered {answer.status}{' ' + code[:60] if code else ''}"
        repository = self._uri.host
        who = self._credentials.shown if self._private else "this pod (no Secret given)"
        if code == "RevisionNotFound":
            return PermanentFailure(
                f"The repository {repository} has no revision {self._revision} ({at}): correct "
                f"what follows the '@' in {self._uri.shown}."
            )
        if code == "GatedRepo":
            return PermanentFailure(
                f"The repository {repository} is gated, and {who} has not been let in ({at}): "
                "accept its terms with the account of the token, and give the token as HF_TOKEN."
            )
        if answer.status in (401, 403, 404):
            return PermanentFailure(
                f"The repository {repository} does not exist, or {who} may not see it ({at}): "
                f"correct {self._uri.shown}, or give a token that may read it as HF_TOKEN."
            )
        return PermanentFailure(f"{at} for {self._uri.shown}: check the URI and HF_ENDPOINT.")


def _files(held: Any, inside: str) -> Sequence[RemoteFile]:
    """The files of a listing, relative to the folder."""
    return [
        _file(entry, entry["path"].removeprefix(inside))
        for entry in held
        if entry["type"] == "file"
    ]


def _file(entry: Any, path: str) -> RemoteFile:
    large = entry.get("lfs") or {}
    sha256 = str(large.get("oid", "")).removeprefix("sha256:")
    return RemoteFile(
        path,
        entry["path"],
        size_of(large.get("size", entry["size"])),
        str(large.get("oid") or entry["oid"]),
        sha256 if _SHA256.match(sha256) else None,
    )
