"""Ray Serve for real: a cluster of one machine that pretends to have four cores, two replicas, and its proxy before
them. Ray stays out of this process: one subprocess holds the cluster, and `serve run` deploys on it."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from letters import train_letters
from pydantic import ValidationError

from antiphon.serving import ray as on_ray

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "ray.yaml"
LONG = {"text": "ab 01", "min_length": 500, "max_length": 500}  # some tenths of a second
PATIENCE = 240.0  # seconds; a replica begins with seconds of imports

# Holds the cluster until its input ends. A line is an application to tell the state of, or the replica of one to kill.
CLUSTER = """
import json, sys
import ray
from ray import serve

ray.init(num_cpus=4, include_dashboard=False, namespace="serve", log_to_driver=False, object_store_memory=100 << 20,
         _temp_dir=sys.argv[1])
print(ray.get_runtime_context().gcs_address, flush=True)
for line in sys.stdin:
    verb, application, *replica = line.split()
    if verb == "kill":
        ray.kill(ray.get_actor(f"SERVE_REPLICA::{application}#Antiphon#{replica[0]}"))
        print("{}", flush=True)
    else:
        told = serve.status().applications.get(application)
        deployments = {} if told is None else told.deployments
        running = sum(one.replica_states.get("RUNNING", 0) for one in deployments.values())
        messages = [] if told is None else [told.message, *(one.message for one in deployments.values())]
        state = {"status": told and told.status, "running": running, "message": " ".join(messages)}
        print(json.dumps(state), flush=True)
ray.shutdown()
"""

slow = pytest.mark.slow
with_ray = pytest.mark.skipif(find_spec("ray") is None, reason='Ray is not installed; pip install "antiphon[ray]"')


class Cluster:
    """One that runs, with what is deployed on it by a config, and answers at an address."""

    def __init__(self, process: "subprocess.Popen[str]", config: Path, environment: dict[str, str], log: Any) -> None:
        assert process.stdout is not None
        self.process, self.config = process, config
        self._environment, self._log = environment, log
        self._where = process.stdout.readline().strip()
        assert self._where, "Ray did not start; its log is beside the config"
        port = json.loads(config.read_text())["http_options"]["port"]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)
        self.serving = self.serve("--blocking")

    def serve(self, *flags: str) -> "subprocess.Popen[bytes]":
        """`serve run` of the config."""
        words = ["-m", "ray.serve.scripts", "run", "--address", self._where, *flags, str(self.config)]
        return subprocess.Popen([sys.executable, *words], stdout=self._log, stderr=self._log, env=self._environment)

    def ask(self, *words: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(*words, file=self.process.stdin, flush=True)
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def generate(self, body: dict[str, Any], prefix: str = "") -> httpx.Response:
        return self.client.post(f"{prefix}/v1/generate", json=body)

    def many(self, count: int, body: dict[str, Any], prefix: str = "") -> list[httpx.Response]:
        """Requests that are asked at once."""
        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(lambda _: self.generate(body, prefix), range(count)))

    def replicas(self, count: int = 20) -> Counter[str]:
        """How many of some requests each replica has answered."""
        answers = self.many(count, {"text": "ab 01"})
        assert {answer.status_code for answer in answers} == {200}
        return Counter(answer.headers[on_ray.HEADER] for answer in answers)


def wait_until(done: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    limit = time.monotonic() + patience
    while not done():
        assert time.monotonic() < limit, f"not in {patience:.0f} seconds: {what}"
        time.sleep(0.1)


def make_config(run: Path, broken: Path, port: int) -> dict[str, Any]:
    """The example's application, with two replicas; one that takes one request at once; and one whose model is cut."""
    import yaml

    config: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    (application,) = config["applications"]
    application["args"]["runs"] = {"tiny": str(run)}
    (deployment,) = application["deployments"]
    del deployment["autoscaling_config"]
    deployment["num_replicas"] = 2
    path = {"import_path": application["import_path"]}
    small = {"name": "small", "route_prefix": "/small", "args": {"runs": f"tiny={run}", "max_outstanding": 1}}
    cut = {"name": "cut", "route_prefix": "/cut", "args": {"runs": {"tiny": str(broken)}}}
    config["applications"] += [path | small, path | cut]
    return config


@contextmanager
def deployed(config: Path) -> Iterator[Cluster]:
    """A cluster with the applications of a config, which are being deployed."""
    environment = os.environ | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",  # left alone, Ray writes one into the home folder
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    with ExitStack() as stack:
        place = stack.enter_context(TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))  # for short sockets
        log = stack.enter_context((config.parent / "ray.log").open("wb"))
        command = [sys.executable, "-c", CLUSTER, place]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, **pipes, stderr=log, env=environment, start_new_session=True)
        stack.callback(end, process)
        cluster = Cluster(process, config, environment, log)
        stack.callback(end, cluster.serving)
        stack.enter_context(cluster.client)
        yield cluster


def end(process: "subprocess.Popen[Any]") -> None:
    """Asks it to end, and insists."""
    if process.stdin is not None:
        process.stdin.close()
    elif process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("ray")
    run, broken = train_letters(folder / "run"), train_letters(folder / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "ray.yaml"
    config.write_text(json.dumps(make_config(run, broken, port)))
    with deployed(config) as found:
        for application, count in (("antiphon", 2), ("small", 1)):
            ready = {"status": "RUNNING", "running": count}
            wait_until(lambda: found.ask("tell", application).items() >= ready.items(), f"{application} runs")  # noqa: B023
        yield found


@slow
@with_ray
def test_both_replicas_answer_and_say_who_they_are(cluster: Cluster) -> None:
    wait_until(lambda: len(cluster.replicas()) == 2, "each replica answers some of twenty requests")
    answer = cluster.client.post("/v1/generate", json={"text": "ab 01"}, headers={"x-request-id": "mine"})
    assert answer.headers.get_list("x-request-id") == ["mine"]


@slow
@with_ray
def test_a_stream_arrives_piece_by_piece(cluster: Cluster) -> None:
    arrived = []
    start = time.monotonic()
    with cluster.client.stream("POST", "/v1/generate", json=LONG | {"stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("data: "):
                arrived.append(time.monotonic() - start)
    assert len(arrived) > 100
    assert arrived[len(arrived) // 4] < 0.6 * arrived[-1]


@slow
@with_ray
def test_too_many_requests_are_told_to_come_again(cluster: Cluster) -> None:
    answers = cluster.many(12, LONG, "/small")
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {200, 429}
    assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 429} == {"1"}
    assert cluster.generate(LONG, "/small").status_code == 200


@slow
@with_ray
def test_a_replica_without_its_model_says_why(cluster: Cluster) -> None:
    wait_until(lambda: cluster.ask("tell", "cut")["status"] == "DEPLOY_FAILED", "Ray gives a broken model up")
    assert "model.safetensors: cannot be read as weights" in cluster.ask("tell", "cut")["message"]


@slow
@with_ray
def test_no_later_request_is_lost_with_a_replica(cluster: Cluster) -> None:
    before = cluster.replicas()
    killed = min(before)
    cluster.ask("kill", "antiphon", killed)
    for _ in range(10):  # 200 requests, all answered
        after = cluster.replicas()
    assert killed not in after
    wait_until(lambda: len(cluster.replicas()) == 2, "another replica takes its place")


@slow
@with_ray
def test_an_update_loses_no_request(cluster: Cluster) -> None:
    """New replicas begin, old ones finish what they do and leave, while requests go on."""
    before = set(cluster.replicas())
    config = json.loads(cluster.config.read_text())
    config["applications"] = config["applications"][:1]
    config["applications"][0]["args"]["max_texts"] = 7
    cluster.config.write_text(json.dumps(config))
    answered: Counter[str] = Counter()

    def is_updated() -> bool:
        answers = cluster.many(8, LONG)
        assert [answer.status_code for answer in answers] == [200] * 8
        assert {len(answer.json()["outputs"][0][0]["tokens"]) for answer in answers} == {500}
        answered.update(answer.headers[on_ray.HEADER] for answer in answers)
        return len(answered.keys() - before) == 2 and cluster.ask("tell", "antiphon")["status"] == "RUNNING"

    updating = cluster.serve("--non-blocking")
    wait_until(is_updated, "new replicas answer")
    end(updating)
    assert before.isdisjoint(cluster.replicas())
    assert cluster.generate({"text": ["ab 01"] * 8}).status_code == 422


@slow
@with_ray
def test_it_stops_and_leaves_nothing_behind(cluster: Cluster) -> None:
    cluster.serving.send_signal(signal.SIGINT)
    assert cluster.serving.wait(PATIENCE) == 0
    with pytest.raises(httpx.ConnectError):
        cluster.generate({"text": "ab 01"})
    assert members(cluster.process.pid) > {cluster.process.pid}
    end(cluster.process)
    assert cluster.process.returncode == 0
    wait_until(lambda: not members(cluster.process.pid), "the processes of Ray end")


def members(session: int) -> set[int]:
    """The processes of a session."""
    listed = subprocess.run(["ps", "-eo", "pid=,sess=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return {int(pid) for pid, its, state in rows if int(its) == session and not state.startswith("Z")}


def test_the_extra_is_named_when_ray_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r'pip install "antiphon\[ray\]"'):
        on_ray.app(on_ray.ReplicaSettings(runs={"tiny": tmp_path}))


def test_runs_may_be_words() -> None:
    settings = on_ray.ReplicaSettings(runs="/models/dates,fr=/models/english-french")  # type: ignore[arg-type]
    assert settings.runs == {"dates": Path("/models/dates"), "fr": Path("/models/english-french")}


def test_a_replica_has_no_engine_processes(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="workers"):
        on_ray.ReplicaSettings(runs={"tiny": tmp_path}, workers=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"runs": "runs/dates"}, {"runs": "/models/dates", "api_keys": "keys.toml"}])
def test_a_place_that_depends_on_the_machine_is_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="give the path from / on"):
        on_ray.ReplicaSettings(**settings)  # type: ignore[arg-type]
