"""CTranslate2 behind FastAPI and Uvicorn with dynamic batching, as its users put it into service.

    benchmarks/.peers/ctranslate2/bin/python benchmarks/ctranslate2_server.py EXPORT --port 8001 --inter-threads 2

EXPORT is a folder that `antiphon export --format ctranslate2` wrote; its tokenizers are used. Requests wait in a queue.
As soon as a worker is free, those that wait and have the oldest one's beam become a batch, at once when there are
--max-batch of them, else when the oldest has waited for --delay-ms; workers that are idle share them. A worker
translates one batch at a time, in a thread that holds no lock of Python's meanwhile. A stream has a worker to itself:
the library streams one source at a time.
serving.py runs it with the interpreter that peers.py installed for CTranslate2; it never imports antiphon.
"""

import argparse
import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import ctranslate2
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field
from tokenizers import Tokenizer

EOS = 3
PARTIAL = "\ufffd"  # what the tokenizer shows for a character whose bytes are not all there yet


class GenerateRequest(BaseModel):
    """What Antiphon's server takes too, as far as it is compared. max_length: tokens of the output."""

    text: str
    beam_size: int = Field(1, ge=1, le=32)
    max_length: int = Field(256, ge=1)
    stream: bool = False


class Backend:
    """A translator with its tokenizers: texts in, texts out. Any thread may call it."""

    def __init__(self, folder: Path, inter_threads: int, intra_threads: int, compute_type: str) -> None:
        shared, source, target = (folder / f"{side}tokenizer.json" for side in ("", "source.", "target."))
        self.source = Tokenizer.from_file(str(shared if shared.exists() else source))
        self.target = Tokenizer.from_file(str(target)) if target.exists() else self.source
        vocabulary = self.source.get_vocab()
        self.names = sorted(vocabulary, key=vocabulary.__getitem__)
        self.ids = self.target.get_vocab()
        self.translator = ctranslate2.Translator(
            str(folder), inter_threads=inter_threads, intra_threads=intra_threads, compute_type=compute_type
        )

    def translate(self, texts: Sequence[str], beam_size: int, max_length: int) -> list[str]:
        """The best output of each, translated as one batch."""
        sources = [self.named(encoding.ids) for encoding in self.source.encode_batch_fast(list(texts))]
        results = self.translator.translate_batch(sources, beam_size=beam_size, max_decoding_length=max_length)
        return [self.text([self.ids[name] for name in result.hypotheses[0]]) for result in results]

    def stream(self, text: str, max_length: int) -> Iterator[str]:
        """The greedy output so far, each time that it has grown by whole characters; at last all of it."""
        ids: list[int] = []
        source = self.named(self.source.encode(text).ids)
        for step in self.translator.generate_tokens(source, max_decoding_length=max_length):
            if step.token_id != EOS:
                ids.append(step.token_id)
                shown = self.text(ids)
                if not shown.endswith(PARTIAL):
                    yield shown
        yield self.text(ids)

    def named(self, ids: Sequence[int]) -> list[str]:
        return [self.names[token] for token in ids]

    def text(self, ids: Sequence[int]) -> str:
        return str(self.target.decode(ids))


@dataclass(eq=False)
class Waiting:
    """A request in the queue, and when it came (the loop's clock)."""

    request: GenerateRequest
    answer: "asyncio.Future[str]"
    since: float


class Batcher:
    """Makes batches of what waits, one for each worker that is free."""

    def __init__(self, backend: Backend, workers: int, max_batch: int, delay: float) -> None:
        self.backend, self.max_batch, self.delay = backend, max_batch, delay
        self.pool = ThreadPoolExecutor(workers)
        self.free = asyncio.Semaphore(workers)
        self.idle = workers  # as `free` counts, but may be read
        self.waiting: deque[Waiting] = deque()
        self.arrived = asyncio.Event()
        self.running: set[asyncio.Task[None]] = set()

    async def ask(self, request: GenerateRequest) -> str:
        """The text that answers a request, when its batch is done."""
        loop = asyncio.get_running_loop()
        waiting = Waiting(request, loop.create_future(), loop.time())
        self.waiting.append(waiting)
        self.arrived.set()
        return await waiting.answer

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            while not self.waiting:
                await self._arrival()
            await self.free.acquire()
            batch = await self._collect()
            self.idle -= 1
            task = asyncio.create_task(self._translate(batch))
            self.running.add(task)
            task.add_done_callback(self.running.discard)

    async def _collect(self) -> list[Waiting]:
        """The oldest request and those like it, as soon as they are enough or the oldest has waited long enough.

        Workers that are idle share them.
        """
        oldest = self.waiting[0]
        end = oldest.since + self.delay
        while len(found := self._like(oldest)) < self.max_batch:
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._arrival()
        found = found[: -(-len(found) // max(1, self.idle))]
        taken = set(map(id, found))
        self.waiting = deque(waiting for waiting in self.waiting if id(waiting) not in taken)
        return found

    async def _arrival(self) -> None:
        self.arrived.clear()
        await self.arrived.wait()

    def _like(self, oldest: Waiting) -> list[Waiting]:
        beam_size = oldest.request.beam_size
        return [waiting for waiting in self.waiting if waiting.request.beam_size == beam_size][: self.max_batch]

    async def _translate(self, batch: Sequence[Waiting]) -> None:
        requests = [waiting.request for waiting in batch]
        texts = [request.text for request in requests]
        longest = max(request.max_length for request in requests)
        call = asyncio.get_running_loop().run_in_executor
        try:
            answers = await call(self.pool, self.backend.translate, texts, requests[0].beam_size, longest)
        except Exception as error:
            for waiting in batch:
                waiting.answer.set_exception(error)
        else:
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.cancelled():
                    waiting.answer.set_result(answer)
        finally:
            self.idle += 1
            self.free.release()

    async def stream(self, request: GenerateRequest) -> AsyncIterator[str]:
        """The output so far, as `Backend.stream`, from a worker of its own."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        gone = False

        def work() -> None:
            try:
                for shown in self.backend.stream(request.text, request.max_length):
                    loop.call_soon_threadsafe(pieces.put_nowait, shown)
                    if gone:
                        break
            finally:
                loop.call_soon_threadsafe(pieces.put_nowait, None)

        async with self.free:
            self.idle -= 1
            done = loop.run_in_executor(self.pool, work)
            try:
                while (shown := await pieces.get()) is not None:
                    yield shown
            finally:
                gone = True
                await asyncio.shield(done)
                self.idle += 1


async def events(pieces: AsyncIterator[str]) -> AsyncIterator[str]:
    """Server-sent events: each new piece of the text as a "delta", at last the "text"."""
    text = ""
    async for shown in pieces:
        if shown != text:
            yield f"data: {json.dumps({'delta': shown.removeprefix(text)}, ensure_ascii=False)}\n\n"
            text = shown
    yield f"data: {json.dumps({'text': text}, ensure_ascii=False)}\n\n"


def create_app(make: Callable[[], Batcher]) -> FastAPI:
    """The service; `make` is called in its event loop."""
    batchers: list[Batcher] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batchers.append(make())
        running = asyncio.create_task(batchers[0].run())
        yield
        running.cancel()

    app = FastAPI(title="CTranslate2", lifespan=lifespan)

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/generate", response_model=None)
    async def generate(request: GenerateRequest) -> Response:
        if request.stream and request.beam_size > 1:
            return JSONResponse({"detail": "stream: greedy only."}, status_code=422)
        if request.stream:
            return StreamingResponse(events(batchers[0].stream(request)), media_type="text/event-stream")
        return JSONResponse({"text": await batchers[0].ask(request) if request.text.strip() else ""})

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description="Serves an exported model with CTranslate2, in dynamic batches.")
    parser.add_argument("model", type=Path, help="a folder that `antiphon export --format ctranslate2` wrote")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--inter-threads", type=int, default=1, help="batches translated at once")
    parser.add_argument("--intra-threads", type=int, default=1, help="threads of each")
    parser.add_argument("--compute-type", default="int8")
    parser.add_argument("--max-batch", type=int, default=32, help="requests of a batch at most")
    parser.add_argument("--delay-ms", type=float, default=2.0, help="how long the first of a batch waits for others")
    args = parser.parse_args()
    backend = Backend(args.model, args.inter_threads, args.intra_threads, args.compute_type)
    app = create_app(lambda: Batcher(backend, args.inter_threads, args.max_batch, args.delay_ms / 1000))
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
