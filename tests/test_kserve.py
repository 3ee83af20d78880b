"""The Open Inference Protocol, asked by Triton's own client over a socket, and in what that client cannot ask."""

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from letters import train_letters

import antiphon
from antiphon.run import Model
from antiphon.serving.answers import Answer, Delta
from antiphon.serving.api import kserve
from antiphon.serving.app import create_app
from antiphon.serving.errors import RefusedError
from antiphon.serving.settings import ServerSettings
from antiphon.text_side import Output

MODEL = "/v2/models/tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_letters(tmp_path_factory.mktemp("served") / "run", "generation.beam_size=2", "generation.n_best=2")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return Model.load(folder)


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Of a server that runs in a thread."""
    app = create_app(ServerSettings(runs={"tiny": folder, "an other": folder}, max_texts=8))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not (server.started and app.state.service.is_ready):
                time.sleep(0.02)
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{address}") as client:
        yield client


@pytest.fixture
def triton(address: str) -> Iterator[Any]:
    http = pytest.importorskip("tritonclient.http")
    with http.InferenceServerClient(address) as triton:
        yield triton


def tensor(*texts: str, **fields: Any) -> dict[str, Any]:
    return {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)} | fields


def infer(client: httpx.Client, *texts: str, **fields: Any) -> dict[str, list[Any]]:
    """The data of each output."""
    response = client.post(f"{MODEL}/infer", json={"inputs": [tensor(*texts)]} | fields)
    assert response.status_code == 200, response.text
    return {output["name"]: output["data"] for output in response.json()["outputs"]}


def refused(response: httpx.Response, *parts: str, status: int = 400) -> None:
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    for part in parts:
        assert part in response.json()["error"]


def events(content: str) -> list[dict[str, str]]:
    lines = content.split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


# The real client


def triton_input(texts: list[str], binary: bool, shape: tuple[int, ...] | None = None) -> Any:
    import numpy as np
    from tritonclient.http import InferInput

    array = np.array([text.encode() for text in texts], dtype=np.object_).reshape(shape or (len(texts),))
    given = InferInput("text", list(array.shape), "BYTES")
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def test_its_own_client_sees_the_server_and_its_models(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.get_server_metadata()["version"] == antiphon.__version__
    for name, version in [("tiny", ""), ("tiny", "1"), ("an other", "1")]:
        assert triton.is_model_ready(name, version)
        assert triton.get_model_metadata(name, version) == {
            "name": name,
            "versions": ["1"],
            "platform": "antiphon",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "text", "datatype": "BYTES", "shape": [-1, -1]},
                {"name": "score", "datatype": "FP32", "shape": [-1, -1]},
                {"name": "finished", "datatype": "BOOL", "shape": [-1, -1]},
            ],
        }
    assert not triton.is_model_ready("none")
    assert not triton.is_model_ready("tiny", "2")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("outputs", ["all", "binary", "json", "mixed"])
@pytest.mark.parametrize("shape", [None, (3, 1)])
def test_its_own_client_infers(
    triton: Any, model: Model, binary_in: bool, outputs: str, shape: tuple[int, ...] | None
) -> None:
    from tritonclient.http import InferRequestedOutput

    texts = ["ab 01", "ab é 02", "ab 03"]
    wanted = {
        "all": None,
        "binary": [InferRequestedOutput(name, binary_data=True) for name in kserve.DATATYPES],
        "json": [InferRequestedOutput(name, binary_data=False) for name in kserve.DATATYPES],
        "mixed": [InferRequestedOutput(name, binary_data=name == "text") for name in kserve.DATATYPES],
    }[outputs]
    given = triton_input(texts, binary_in, shape)
    found = triton.infer(
        "tiny", [given], "1", outputs=wanted, request_id="7", parameters={"beam_size": 3, "n_best": 3}, timeout=10**7
    )
    expected = model.outputs(texts, beam_size=3, n_best=3)
    assert found.get_response()["id"] == "7"
    said = [[one.decode() if isinstance(one, bytes) else one for one in row] for row in found.as_numpy("text").tolist()]
    assert said == [[output.text for output in some] for some in expected]
    scores = [[output.score for output in some] for some in expected]
    assert found.as_numpy("score").tolist() == [pytest.approx(row, abs=1e-4) for row in scores]
    assert found.as_numpy("finished").tolist() == [[output.finished for output in some] for some in expected]


def test_its_own_client_is_told_why(triton: Any) -> None:
    from tritonclient.utils import InferenceServerException

    given = triton_input(["ab 01"], binary=True)
    for parameters, part in [({"n_best": 3}, "n_best"), ({"beam_sise": 3}, "beam_sise")]:
        with pytest.raises(InferenceServerException, match=part) as error:
            triton.infer("tiny", [given], parameters=parameters)
        assert error.value.status() == "400"
    with pytest.raises(InferenceServerException, match="sequence_id"):
        triton.infer("tiny", [given], sequence_id=3)
    with pytest.raises(InferenceServerException, match="priority"):
        triton.infer("tiny", [given], priority=3)
    with pytest.raises(InferenceServerException, match="not compressed"):
        triton.infer("tiny", [given], request_compression_algorithm="gzip")
    with pytest.raises(InferenceServerException, match="not served"):
        triton.infer("none", [given])
    with pytest.raises(InferenceServerException, match="config"):
        triton.get_model_config("tiny")
    found = triton.infer("tiny", [given], response_compression_algorithm="gzip")
    assert found.as_numpy("score").shape == (1, 2)


# Infer


def test_only_the_outputs_that_are_asked_for_are_given(client: httpx.Client) -> None:
    found = infer(client, "ab 01", outputs=[{"name": "finished"}, {"name": "text"}])
    assert list(found) == ["finished", "text"]


def test_data_may_be_nested_as_the_shape_is(client: httpx.Client) -> None:
    flat = client.post(f"{MODEL}/infer", json={"inputs": [tensor("ab 01", "ab 02")]}).json()
    nested = {"inputs": [tensor(shape=[2, 1], data=[["ab 01"], ["ab 02"]])]}
    assert client.post(f"{MODEL}/versions/1/infer", json=nested).json() == flat
    assert flat["outputs"][0]["shape"] == [2, 2]


def test_a_text_with_fewer_outputs_is_filled_up(client: httpx.Client, model: Model) -> None:
    found = infer(client, "", "ab 01")
    assert found["text"] == ["", "", *(output.text for output in model.outputs(["ab 01"])[0])]
    assert found["score"][:2] == [0.0, kserve.PADDING]
    assert found["finished"][:2] == [True, False]
    assert struct.unpack("<f", struct.pack("<f", kserve.PADDING))[0] == kserve.PADDING


def test_parameters_are_the_settings_of_the_model(client: httpx.Client, model: Model) -> None:
    found = infer(client, "ab 01", parameters={"sample": True, "seed": 3, "prefix": "AB", "max_length": 6, "n_best": 1})
    (expected,) = model.outputs(["ab 01"], sample=True, seed=3, prefix="AB", max_length=6, n_best=1)
    assert found["text"] == [expected[0].text]
    (whole,) = infer(client, "ab 01", parameters={"prefix": "AB CD", "n_best": 1})["text"]
    (cut,) = infer(client, "ab 01", parameters={"prefix": "AB CD", "n_best": 1, "stop": " C"})["text"]
    assert whole.startswith("AB CD")
    assert cut == "AB"
    (long,) = infer(client, "ab 01.\n\n" * 6, parameters={"split": "sentence", "language": "fr", "n_best": 1})["text"]
    assert long.count("\n\n") == 6


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [tensor("a"), tensor("b")]}, "inputs"),
        ({"inputs": [tensor("a", name="words")]}, "name"),
        ({"inputs": [tensor("a", datatype="INT32")]}, "datatype"),
        ({"inputs": [tensor("a", shape=[2])]}, "the shape [2] does not fit 1 texts"),
        ({"inputs": [tensor("a", shape=[-1])]}, "shape"),
        ({"inputs": [tensor("a", shape=[])]}, "shape"),
        ({"inputs": [tensor()]}, "a text at least"),
        ({"inputs": [tensor(data=[3], shape=[1])]}, "found 3"),
        ({"inputs": [tensor(data=[{"a": 1}], shape=[1])]}, "texts"),
        ({"inputs": [tensor(data=None, shape=[1])]}, "either data or"),
        ({"inputs": [tensor("a", parameters={"binary_data_size": 3})]}, "either data or"),
        ({"inputs": [tensor(data=None, shape=[1], parameters={"binary_data_size": 3})]}, "expected 3 bytes"),
        ({"inputs": [tensor("a", parameters={"shared_memory_region": "x"})]}, "shared_memory_region"),
        ({"inputs": [tensor("a")], "outputs": [{"name": "logits"}]}, "name"),
        ({"inputs": [tensor("a")], "outputs": [{"name": "text", "parameters": {"classification": 3}}]}, "classif"),
        ({"inputs": [tensor("a")], "parameters": {"beam_size": 99}}, "beam_size"),
        ({"inputs": [tensor("a")], "parameters": {"min_length": 5, "max_length": 3}}, "min_length"),
        ({"inputs": [tensor("a")], "parameters": {"max_length": 99999}}, "max_length"),
        ({"inputs": [tensor("a")], "parameters": {"temperature": 0}}, "temperature"),
        ({"inputs": [tensor("a")], "parameters": {"max_tokens": 3}}, "max_tokens"),
        ({"inputs": [tensor("a")], "parameters": {"timeout": 0}}, "timeout"),
        ({"inputs": [tensor("a")], "parameters": {"timeout": 10**400}}, "timeout"),
        ({"inputs": [tensor("a")], "parameters": {"stop": ""}}, "stop"),
        ({"inputs": [tensor("a")], "extra": 3}, "extra"),
        ({"inputs": [tensor(*"abcdefghi")]}, "at most 8"),
        ({"inputs": [tensor("ab " * 99)]}, "at most 20 tokens"),
    ],
)
def test_what_cannot_be_is_refused_with_400_and_a_sentence(
    client: httpx.Client, body: dict[str, object], part: str
) -> None:
    refused(client.post(f"{MODEL}/infer", json=body), part)


@pytest.mark.parametrize(
    ("content", "length", "part"),
    [
        (b"", None, "JSON"),
        (b"{", None, "JSON"),
        (b"[" * 5000, None, "JSON"),
        (b"\xff", None, "JSON"),
        (b"{}", "3", "up to 2"),
        (b"{}", "-1", "up to 2"),
        (b"{}", "9" * 5000, "up to 2"),
        (b"{}", "x", "up to 2"),
        (b"{}abc", "2", "inputs"),
    ],
)
def test_bodies_that_are_broken_are_refused(
    client: httpx.Client, content: bytes, length: str | None, part: str
) -> None:
    headers = {} if length is None else {"inference-header-content-length": length}
    for path in ("infer", "generate") if length is None else ("infer",):
        refused(client.post(f"{MODEL}/{path}", content=content, headers=headers), part)


@pytest.mark.parametrize(
    ("binary", "part"),
    [
        (b"", "expected 3 bytes"),
        (b"\x00\x00", "expected 3 bytes"),
        (b"\x00\x00\x00", "middle"),
        (b"\x05\x00\x00\x00abc", "middle"),
        (b"\xff\xff\xff\xffabc", "middle"),
        (b"\x01\x00\x00\x00\xff", "UTF-8"),
        (b"\x00\x00\x00\x00" * 2, "does not fit 2 texts"),
    ],
)
def test_tensors_that_are_broken_are_refused(client: httpx.Client, binary: bytes, part: str) -> None:
    size = 3 if "3 bytes" in part else len(binary)
    body = {"inputs": [tensor(data=None, shape=[1], parameters={"binary_data_size": size})]}
    head = json.dumps(body).encode()
    headers = {"inference-header-content-length": str(len(head))}
    refused(client.post(f"{MODEL}/infer", content=head + binary, headers=headers), part)


@pytest.mark.parametrize("path", ["/v2/models/none", "/v2/models/none/ready", f"{MODEL}/versions/2", "/v2/none"])
def test_what_is_not_there_is_told_in_this_form(client: httpx.Client, path: str) -> None:
    refused(client.get(path), status=404)
    refused(client.post("/v2/models/none/infer", json={"inputs": [tensor("a")]}), "tiny", status=404)
    refused(client.post(f"{MODEL}/versions/2/generate", json={"text_input": "a"}), "'2'", status=404)


# Generate


@pytest.mark.parametrize("path", [f"{MODEL}/generate", f"{MODEL}/versions/1/generate"])
def test_a_text_is_generated(client: httpx.Client, model: Model, path: str) -> None:
    body = {"text_input": "ab 01", "parameters": {"beam_size": 3, "stream": False}}
    response = client.post(
        path, content=json.dumps(body), headers={"content-type": "application/x-www-form-urlencoded"}
    )
    expected = model.generate(["ab 01"], beam_size=3, n_best=1)[0]
    assert response.json() == {"model_name": "tiny", "model_version": "1", "text_output": expected}


def test_parameters_may_stand_beside_the_text(client: httpx.Client) -> None:
    inside = client.post(f"{MODEL}/generate", json={"text_input": "ab 01", "parameters": {"prefix": "AB"}})
    beside = client.post(f"{MODEL}/generate", json={"text_input": "ab 01", "prefix": "AB", "id": "7"})
    assert inside.json() == beside.json()
    assert inside.json()["text_output"].startswith("AB")


@pytest.mark.parametrize("text", ["ab 01", "ab 01. ab é.\n\nab 02.", ""])
@pytest.mark.parametrize("parameters", [{}, {"beam_size": 3}, {"sample": True, "seed": 3}, {"stream": True}])
def test_deltas_of_a_stream_make_up_the_text(client: httpx.Client, text: str, parameters: dict[str, Any]) -> None:
    body: dict[str, Any] = {"text_input": text, "parameters": {"split": "sentence"} | parameters}
    response = client.post(f"{MODEL}/generate_stream", json=body)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = events(response.text)
    assert found
    assert all({"model_name": "tiny", "model_version": "1"}.items() <= event.items() for event in found)
    body["parameters"].pop("stream", None)
    whole = client.post(f"{MODEL}/generate", json=body).json()["text_output"]
    assert "".join(event["text_output"] for event in found) == whole


@pytest.mark.parametrize("path", ["generate", "generate_stream"])
@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({}, "text_input"),
        ({"text_input": ["a"]}, "text_input"),
        ({"text_input": "a", "parameters": {"max_tokens": 3}}, "max_tokens"),
        ({"text_input": "a", "max_tokens": 3}, "max_tokens"),
        ({"text_input": "a", "parameters": {"top_p": 2}}, "top_p"),
        ({"text_input": "a", "seed": 1, "parameters": {"seed": 1}}, "seed"),
        ({"text_input": "a", "n_best": 2}, "n_best"),
        ({"text_input": "a", "parameters": {"binary_data_output": True}}, "binary_data_output"),
        ({"text_input": "ab " * 99}, "at most 20 tokens"),
    ],
)
def test_what_cannot_be_generated_is_refused(client: httpx.Client, path: str, body: dict[str, Any], part: str) -> None:
    refused(client.post(f"{MODEL}/{path}", json=body), part)


def test_stream_says_what_the_address_says(client: httpx.Client) -> None:
    refused(client.post(f"{MODEL}/generate", json={"text_input": "a", "stream": True}), "generate_stream")
    refused(client.post(f"{MODEL}/generate_stream", json={"text_input": "a", "stream": False}), "ask generate")


def test_an_error_in_the_middle_of_a_stream_is_its_last_event() -> None:
    async def parts() -> AsyncIterator[Delta | Answer]:
        yield Delta("b")
        raise RefusedError(504, "late", "it is too late.")

    async def told(first: Delta | Answer) -> str:
        return "".join([event async for event in kserve._events("tiny", first, parts())])

    *before, last = events(asyncio.run(told(Delta("a"))))
    assert [event["text_output"] for event in before] == ["a", "b"]
    assert last == {"error": "it is too late."}
    (only,) = events(asyncio.run(told(Answer([Output("", 0.0, [], [], True)], [], 0))))
    assert only["text_output"] == ""


# Readiness and load


@pytest.fixture
def app(folder: Path) -> Any:
    """One that has not begun to load."""
    return create_app(ServerSettings(runs={"tiny": folder}, max_outstanding=1))


def ask(app: Any, method: str, path: str, **body: Any) -> httpx.Response:
    async def answer() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return await client.request(method, path, **body)

    return asyncio.run(answer())


def test_a_server_that_loads_is_alive_and_not_ready(app: Any) -> None:
    assert ask(app, "GET", "/v2/health/live").json() == {"live": True}
    assert ask(app, "GET", "/v2/health/ready").status_code == 503
    found = ask(app, "GET", f"{MODEL}/ready")
    assert (found.status_code, found.json()) == (503, {"name": "tiny", "ready": False})
    response = ask(app, "POST", f"{MODEL}/generate", json={"text_input": "ab"})
    refused(response, "not ready", status=503)
    assert response.headers["retry-after"]


def test_too_much_at_once_is_429(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service = app.state.service

    def full(*_: object) -> None:
        raise RefusedError(429, "overloaded", "the server has too many requests open.", retry_after=3)

    monkeypatch.setattr(service, "_counted", full)
    for path, body in [("infer", {"inputs": [tensor("ab")]}), ("generate_stream", {"text_input": "ab"})]:
        response = ask(app, "POST", f"{MODEL}/{path}", json=body)
        refused(response, "too many", status=429)
        assert response.headers["retry-after"] == "3"


def test_what_the_api_page_says_refers_to_nothing_that_is_missing(app: Any) -> None:
    document = app.openapi()
    assert {f"{MODEL.replace('tiny', '{model}')}{version}/infer" for version in ("", "/versions/{version}")} <= set(
        document["paths"]
    )

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            node = list(node.values())
        if isinstance(node, list):
            for one in node:
                yield from references(one)

    for reference in references(document):
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in document["components"]["schemas"]
    for path, verbs in document["paths"].items():
        for verb in verbs.values():
            named = {one["name"] for one in verb.get("parameters", []) if one["in"] == "path"}
            assert named == {part.strip("{}") for part in path.split("/") if part.startswith("{")}
