"""Model URIs: where the bytes are, and what a pod needs to get at them."""

from __future__ import annotations

from dataclasses import dataclass, replace

#: Where every runtime finds its model, and where the fetcher puts it.
MODEL_PATH = "/mnt/models"
_REMOTE = frozenset({"s3", "gs", "az", "abfs", "abfss", "hf", "oci", "https"})
#: Artifacts that MLflow's tracking server hands out itself. Only a registry may name them.
_ARTIFACTS = "mlflow-artifacts"
_ARTIFACTS_API = "api/2.0/mlflow-artifacts/artifacts"


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """A parsed URI. ``claim`` and ``path`` are those of ``pvc://claim/path`` and ``file:///path``.

    ``digest`` is the one that an ``oci`` URI names. ``image`` is set where the node itself pulls
    the model and mounts it as a volume: the reference that it pulls.

    ``source`` is where the fetcher finds what the URI names only, and ``uri`` otherwise.

    ``remote``: a pod fetches over the network. ``fetched``: an init container runs (it copies what
    is remote and verifies what a volume holds); a ``file`` model is part of the server's image.
    """

    uri: str
    scheme: str
    claim: str = ""
    path: str = ""
    digest: str = ""
    image: str = ""
    source: str = ""

    @property
    def remote(self) -> bool:
        return (self.scheme in _REMOTE or self.scheme == _ARTIFACTS) and not self.image

    @property
    def proxied(self) -> bool:
        """Whether the bytes come by way of MLflow's tracking server."""
        return self.scheme == _ARTIFACTS

    def by_way_of(self, server: str) -> ModelLocation:
        """The same, with the address of that server, which the fetcher has to know."""
        path = self.source.removeprefix(f"{_ARTIFACTS}:").lstrip("/")
        return replace(self, source=f"{_ARTIFACTS}+{server.rstrip('/')}/{_ARTIFACTS_API}/{path}")

    @property
    def fetched(self) -> bool:
        return self.scheme != "file" and not self.image

    def as_image(self, digest: str) -> ModelLocation:
        """The same model, pulled by the node at this digest, whatever its tag names then."""
        repository = self.uri.removeprefix("oci://").partition("@")[0]
        host, slash, name = repository.rpartition("/")
        return replace(self, image=f"{host}{slash}{name.partition(':')[0]}@{digest}")

    @property
    def model_path(self) -> str:
        """The folder in the server's file system that holds the model."""
        return self.path if self.scheme == "file" else MODEL_PATH


def located(uri: str, source: str) -> ModelLocation:
    """A model that goes by ``uri`` and whose bytes are at ``source``; raises ValueError."""
    if source.startswith(f"{_ARTIFACTS}:/"):
        return ModelLocation(uri, _ARTIFACTS, source=source)
    return replace(parse(source), uri=uri, source=source)


def parse(uri: str) -> ModelLocation:
    """Splits a URI that the schema has accepted; raises ValueError for anything else."""
    scheme, separator, rest = uri.partition("://")
    if not separator or not rest:
        raise ValueError(f"{uri!r} is not a URI of the form scheme://…")
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        return ModelLocation(uri, scheme, claim=claim, path=path.strip("/"))
    if scheme == "file":
        return ModelLocation(uri, scheme, path="/" + rest.strip("/"))
    if scheme == "oci":
        return ModelLocation(uri, scheme, digest=rest.partition("@")[2])
    if scheme not in _REMOTE:
        raise ValueError(f"{scheme}:// is not a model store that this version reads")
    return ModelLocation(uri, scheme)
