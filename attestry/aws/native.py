"""Acts of other functions, for the caller of this one: the same request context, another route.

A function that speaks another protocol than the native API has no rights of its own for what the native API does. It asks the function
that has them, with the event that the gateway would have sent: the caller is the one that the gateway authenticated, and the function asked
decides by itself whether they may.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from attestry.aws.http import Answer, Request
from attestry.domain.errors import AttestryError, UnavailableError
from attestry.ports import Functions

_TRANSITION: Final = "/v1/models/{model}/versions/{number}/transition"
_IMPORTS: Final = "/v1/models/{model}/versions"


class RefusedError(AttestryError):
    """Another function refused; its own words, code and status."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


def forward(functions: Functions, name: str, request: Request) -> Answer:
    """Have another function answer a request of its own protocol, for the same caller, whom it admits by itself.

    Args:
        functions: calls other functions.
        name: the function.
        request: the request.

    Raises:
        UnavailableError: it failed, or answered nothing that could be read.
    """
    event = {
        "version": "2.0",
        "routeKey": request.route,
        "pathParameters": dict(request.parameters),
        "rawQueryString": request.raw_query,
        "requestContext": {**request.context, "routeKey": request.route},
        "body": base64.b64encode(request.raw).decode(),
        "isBase64Encoded": True,
    }
    answer = functions.call(name, event)
    try:
        return Answer(json.loads(answer["body"]), int(answer["statusCode"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UnavailableError(f"the function {name} gave no answer that could be read") from error


class NativeActs:
    """What other functions do for the caller of a request (`attestry.usecases.mlflow_changing.Acts`).

    Args:
        functions: calls other functions.
        request: the request whose caller asks.
        operate: name of the function that moves versions.
        uploads: name of the function that takes imports.
    """

    def __init__(self, functions: Functions, request: Request, *, operate: str, uploads: str) -> None:
        self._functions = functions
        self._request = request
        self._operate = operate
        self._uploads = uploads

    def deploy(self, model: str, number: int, reason: str) -> None:
        """Begin to put a version in place."""
        self._move(model, number, "DEPLOYED", reason)

    def retire(self, model: str, number: int, reason: str) -> None:
        """Take a version out of use."""
        self._move(model, number, "RETIRED", reason)

    def bring(self, model: str, body: dict[str, Any]) -> int:
        """Make a version of files that the caller uploaded, and return its number."""
        return int(self._post(self._uploads, _IMPORTS, {"model": model}, body)["version"])

    def _move(self, model: str, number: int, to: str, reason: str) -> None:
        self._post(self._operate, _TRANSITION, {"model": model, "number": str(number)}, {"to": to, "reason": reason})

    def _post(self, function: str, path: str, parameters: Mapping[str, str], body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the body of an answer.

        Raises:
            RefusedError: the function refused.
            UnavailableError: it failed, or answered nothing that could be read.
        """
        route = f"POST {path}"
        context = {**self._request.context, "routeKey": route}
        event = {
            "version": "2.0",
            "routeKey": route,
            "pathParameters": dict(parameters),
            "requestContext": context,
            "body": json.dumps(body),
        }
        answer = self._functions.call(function, event)
        try:
            status, told = int(answer["statusCode"]), json.loads(answer["body"])
        except (KeyError, TypeError, ValueError) as error:
            raise UnavailableError(f"the function {function} gave no answer that could be read") from error
        if status < 400:
            return dict(told)
        raise RefusedError(str(told.get("code", "error")), status, str(told.get("detail") or "the registry refused"))
