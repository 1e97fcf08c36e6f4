"""The failures that a client or an administrator is told about, each one sentence."""

from __future__ import annotations


class ModelLoadError(Exception):
    """The model cannot be served: the message says what is wrong and what to do."""


class RequestRefusedError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: the HTTP status to answer with.
        message: what the client is told; names the input at fault where there is one.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class InvalidRequestError(RequestRefusedError):
    """The request itself is wrong (400): nothing reached the model."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class ModelRunError(RequestRefusedError):
    """The model raised on a request that passed validation (500)."""

    def __init__(self, message: str) -> None:
        super().__init__(500, message)
