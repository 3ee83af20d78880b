"""Why a request is refused: one kind of error for the whole server, which each dialect tells in its own form."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from antiphon.serving.account import current

LONGEST_NAME = 80  # of a field, in a message


class RefusedError(Exception):
    """An HTTP status, a word for programs, and a sentence for people.

    reason: invalid, too_long, not_found, unauthorized, too_large, overloaded, unavailable, late or failed. parameter:
    the field at fault, where there is one. retry_after: seconds.
    """

    def __init__(
        self, status: int, reason: str, message: str, parameter: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message
        self.parameter, self.retry_after = parameter, retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer that tells it."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return headers | {"www-authenticate": "Bearer"} if self.status == 401 else headers


def invalid(message: str, parameter: str | None = None) -> RefusedError:
    return RefusedError(422, "invalid", message, parameter)


def from_validation(error: RequestValidationError) -> RefusedError:
    """The first thing that is wrong with a body, as a sentence that names the field."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return RefusedError(400, "invalid", f"the body is no JSON ({first.get('ctx', {}).get('error', 'broken')}).")
    if first["loc"] == ("body",) and first["type"] in ("missing", "model_type", "model_attributes_type"):
        return invalid("the body is no JSON object; send one, with content-type: application/json.")
    place = shown(".".join(str(part) for part in first["loc"][1:]))
    message = str(first["msg"]).removeprefix("Value error, ").rstrip(".") + "."
    return invalid(f"{place}: {message}" if place else message, place or None)


def shown(name: str) -> str:
    """A name that came from outside, fit for a sentence."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in name[:LONGEST_NAME])


Shape = Callable[[RefusedError], Response]


def shaped_by(shape: Shape) -> type[APIRoute]:
    """A route that tells every refusal in the form of its dialect."""

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                try:
                    return await handle(request)
                except RequestValidationError as error:
                    refused = from_validation(error)
                except RefusedError as error:
                    refused = error
                current().refused = refused.reason
                return shape(refused)

            return answer

    return Route
