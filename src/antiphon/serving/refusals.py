"""How a refusal is told that no dialect's route has come to see: in the form that the client of its path expects."""

from fastapi import Response

from antiphon.serving.account import current
from antiphon.serving.api import kserve, libretranslate, native, openai
from antiphon.serving.errors import RefusedError, Shape

SHAPES: dict[str, Shape] = {
    **dict.fromkeys(("/v1/completions", "/v1/chat", "/v1/models"), openai.shape),
    **dict.fromkeys(("/translate", "/languages", "/detect", "/frontend"), libretranslate.shape),
    "/v2": kserve.shape,
}


def refusal(path: str, error: RefusedError) -> Response:
    """The answer that tells it, which the request's account notes."""
    current().refused = error.reason
    shapes = (shape for place, shape in SHAPES.items() if path == place or path.startswith(f"{place}/"))
    return next(shapes, native.shape)(error)
