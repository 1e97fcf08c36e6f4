"""The mlflow store: artifacts that MLflow's tracking server hands out itself.

A model is a folder there. The server lists one folder at a time, says of a file how long it is and
not which bytes it has; those are asked for when the listing is made, so that a transfer that
breaks goes on where the server can do that (its own disk), and starts over where it cannot.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from mooring_fetcher.body import HttpBody
from mooring_fetcher.credentials import Credentials
from mooring_fetcher.failure import Changed, PermanentFailure
from mooring_fetcher.store import Listing, RemoteFile, size_of
from mooring_fetcher.uri import MLFLOW_ARTIFACTS, ModelUri
from mooring_fetcher.web import Answer, Web, refuse_plain, rest_of

T = TypeVar("T")
#: Name, whether it is a folder, bytes.
Folder = list[tuple[str, bool, int]]

_LARGE = 8 << 20
"""Bytes from which on it is worth a request to know whether a file can be gone on with."""
_MAX_FOLDERS = 1_000


class MlflowStore:
    """Implements :class:`mooring_fetcher.store.Store`."""

    def __init__(self, uri: ModelUri, credentials: Credentials) -> None:
        self._uri = uri
        self._credentials = credentials
        self._artifacts = f"{uri.host}/{MLFLOW_ARTIFACTS}"
        self._private = _authorization(credentials)
        if self._private:
            refuse_plain(uri.host, credentials.shown)
        self._web = Web(ca_file=credentials.ca_file(), shown=credentials.shown)

    def list(self, max_files: int) -> Listing:
        root = self._uri.path.rstrip("/")
        entries = self._entries(root)
        if not entries and "/" in root:
            folder, _, name = root.rpartition("/")
            one = [e for e in self._entries(folder) if e[0] == name and not e[1]]
            if one:
                return Listing(True, (self._file(name, root, one[0][2]),))
        return Listing(False, self._below(root, entries, max_files))

    def open(self, file: RemoteFile, offset: int) -> HttpBody:
        headers = {}
        if offset and file.version is not None:
            headers = {"Range": f"bytes={offset}-", "If-Range": file.version}
        answer = self._web.follow(self._address(file.key), headers | self._private, file.key)
        if answer.status == 404:
            answer.close()
            raise Changed
        self._ok(answer)
        other = file.version is not None and answer.strong_etag != file.version
        if other and answer.status != 416:
            answer.close()
            raise Changed
        return rest_of(answer, file, offset, self._uri.shown)

    def close(self) -> None:
        self._web.close()

    def _below(self, root: str, entries: Folder, max_files: int) -> tuple[RemoteFile, ...]:
        files: list[RemoteFile] = []
        folders = [("", entries)]
        asked = 0
        while folders and len(files) <= max_files:
            inside, held = folders.pop()
            for name, is_folder, size in held:
                path = f"{inside}{name}"
                if not is_folder:
                    files.append(self._file(path, f"{root}/{path}", size))
                    continue
                asked += 1
                if asked > _MAX_FOLDERS:
                    raise PermanentFailure(
                        f"{self._uri.shown} has more than {_MAX_FOLDERS} folders: log the model as "
                        "an archive."
                    )
                folders.append((f"{path}/", self._entries(f"{root}/{path}")))
        return tuple(sorted(files, key=lambda file: file.path))

    def _entries(self, path: str) -> Folder:
        """Names in a folder, whether each is a folder, and its bytes. Empty where there is none."""
        url = f"{self._artifacts}?{urlencode({'path': path})}"
        answer = self._web.ask(url, self._private)
        if answer.status == 404:
            answer.close()
            return []
        self._ok(answer)
        return self._read(answer, lambda held: [_entry(e) for e in held.get("files") or ()])

    def _file(self, path: str, key: str, size: int) -> RemoteFile:
        return RemoteFile(path, key, size, self._version(key) if size >= _LARGE else None)

    def _version(self, key: str) -> str | None:
        """The file's ETag where the server gives out parts of it; None where it cannot."""
        headers = {"Range": "bytes=0-0"} | self._private
        answer = self._web.follow(self._address(key), headers, key)
        answer.close()
        return answer.strong_etag if answer.status == 206 else None

    def _address(self, key: str) -> str:
        return f"{self._artifacts}/{quote(key)}"

    def _read(self, answer: Answer, parse: Callable[[Any], T]) -> T:
        """What the answer's JSON says."""
        try:
            return parse(json.loads(answer.read()))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise PermanentFailure(
                f"{self._uri.host} does not answer as MLflow's tracking server does: the "
                "operator's administrator has to check its address."
            ) from None

    def _ok(self, answer: Answer) -> Answer:
        """The answer, if it is one that can be used; else raises what its status means."""
        return answer.usable(f"{self._uri.shown}: {self._uri.host}", self._meaning)

    def _meaning(self, answer: Answer) -> PermanentFailure:
        at = f"{self._uri.host} answered {answer.status}"
        who = self._credentials.shown if self._private else "this pod (no Secret given)"
        if answer.status in (401, 403):
            return PermanentFailure(
                f"Access to {self._uri.shown} is denied to {who} ({at}): give "
                "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
                "in the Secret."
            )
        return PermanentFailure(
            f"{at} for {self._uri.shown}: it must be started with --serve-artifacts."
        )


def _authorization(credentials: Credentials) -> dict[str, str]:
    """By MLflow's own names, or those of https."""
    if token := credentials.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user = credentials.get("MLFLOW_TRACKING_USERNAME")
    password = credentials.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    held = credentials.https_authorization()
    return {"Authorization": held} if held else {}


def _entry(entry: Any) -> tuple[str, bool, int]:
    is_folder = bool(entry.get("is_dir"))
    name = str(entry["path"]).rstrip("/").rsplit("/", 1)[-1]
    if not name:
        raise ValueError("a file without a name")
    return name, is_folder, 0 if is_folder else size_of(entry.get("file_size", 0))
