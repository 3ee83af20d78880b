"""The HTTP service: texts in, texts out, through the engine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from antiphon import config as settings
from antiphon.decoding.search import make_search
from antiphon.engine.engine import Engine
from antiphon.run import Model
from antiphon.text_side import BLANK, Output

MAX_TEXTS = 256


class GenerateRequest(BaseModel):
    """What to answer, and how to search; a setting that is left out is the model's own."""

    model_config = ConfigDict(extra="forbid")

    text: str | Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS)]
    prefix: str = ""
    beam_size: int | None = Field(None, ge=1, le=32)
    n_best: int | None = Field(None, ge=1, le=32)
    length_penalty: float | None = Field(None, ge=0)
    min_length: int | None = Field(None, ge=0)
    max_length: int | None = Field(None, ge=1)
    no_repeat_ngram: int | None = Field(None, ge=0)
    sample: bool | None = None
    temperature: float | None = Field(None, gt=0)
    top_k: int | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0)


class GeneratedText(BaseModel):
    """One output. score: its log-probability (natural logarithm); token_scores: those of its tokens and its end."""

    text: str
    score: float
    tokens: list[str]
    token_scores: list[float]
    finished: bool


class GenerateResponse(BaseModel):
    """outputs: for each text its n best, best first."""

    model: str
    outputs: list[list[GeneratedText]]


def create_app(model: Model, name: str) -> FastAPI:
    """The service of one model; `name` is how it calls itself."""
    engine = Engine(model.network)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.close()

    app = FastAPI(title="Antiphon", description="Answers of an encoder-decoder model.", lifespan=lifespan)

    @app.exception_handler(ValueError)
    async def refuse(request: Request, error: ValueError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=422)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok", "model": name}

    @app.post("/v1/generate")
    async def generate(request: GenerateRequest) -> GenerateResponse:
        texts = [request.text] if isinstance(request.text, str) else request.text
        outputs = await _answer(model, engine, texts, request)
        return GenerateResponse(model=name, outputs=outputs)

    return app


async def _answer(
    model: Model, engine: Engine, texts: list[str], request: GenerateRequest
) -> list[list[GeneratedText]]:
    """Submits each text, waits for all; a client that goes cancels what is left."""
    wanted = settings.generation_settings(model.config.generation, **request.model_dump(exclude={"text", "prefix"}))
    prefix = model.tokenizers.target.encode(request.prefix) if request.prefix else []
    sources = [model.source_ids(text) for text in texts]
    limit = model.config.training.max_length
    for text, source in zip(texts, sources, strict=True):
        if len(source) - 1 > limit:
            raise HTTPException(
                422, f"text: at most {limit} tokens, found {len(source) - 1} in {text[:40]!r}...; split it."
            )
    searches = [make_search(wanted, model.max_length(len(source), wanted), prefix) for source in sources]
    asked = [
        asyncio.wrap_future(engine.submit(source, search)) if text.strip() else None
        for text, source, search in zip(texts, sources, searches, strict=True)
    ]
    try:
        await asyncio.gather(*(future for future in asked if future is not None))
    finally:
        for future in asked:
            if future is not None:
                future.cancel()
    return [
        [_shown(BLANK)] if future is None else [_shown(model.output(hypothesis)) for hypothesis in future.result()]
        for future in asked
    ]


def _shown(output: Output) -> GeneratedText:
    return GeneratedText(
        text=output.text,
        score=output.score,
        tokens=output.tokens,
        token_scores=output.token_scores,
        finished=output.finished,
    )
