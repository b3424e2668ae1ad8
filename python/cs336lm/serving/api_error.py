"""What is answered to a request that is not served: OpenAI's form, which every client reads.

    {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}

``message`` is for people: what is wrong and what to do. ``param`` names the field at fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INVALID = "invalid_request_error"
UNAVAILABLE = "service_unavailable"


class ApiError(Exception):
    """A request that is refused, or that failed.

    Args:
        status: of HTTP.
        message: one line.
        type: OpenAI's kind of error.
        param: the field at fault, if it is one.
        code: OpenAI's name of the case, where it has one.
        headers: what else the answer says, such as ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        type: str = INVALID,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        fields = {"message": self.message, "type": self.type, "param": self.param}
        return {"error": {**fields, "code": self.code}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request could never have worked."""
    return ApiError(400, message, param=param, code=code)


def unavailable(message: str) -> ApiError:
    """503: the server is stopping, or its model has failed."""
    return ApiError(503, message, UNAVAILABLE)


def busy(message: str, seconds: int) -> ApiError:
    """429: more was asked than there is room for; ``seconds`` says when to come again."""
    return ApiError(
        429,
        message,
        "rate_limit_exceeded",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(seconds)},
    )
