"""Law 6: stopped anywhere, by a signal or by kill -9, and resumed = never stopped; bit for bit.

Trainings that are killed are real processes. One server process imports the library once, and forks each of
them from there; this file is that server too, when it is run as a script.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

STEPS = 60
KEPT = 3  # checkpoints that are averaged
SHORT = 24  # steps of a training that is not killed, only asked to stop
MODELS = {
    "transformer": {},
    "gru": {"encoder": "gru", "decoder": "gru", "encoder_layers": 1},
}


def train_toy(
    out: Path,
    kind: str,
    resume: bool,
    listener: Any = None,
    wanted: Callable[[], bool] = lambda: True,
    steps: int = STEPS,
) -> None:
    """A training with dropout, accumulation, an average, and a checkpoint every second step."""
    from antiphon.config import Config
    from antiphon.data.pairs import Pair
    from antiphon.training.train import train

    dice = random.Random(1)
    texts = [" ".join(dice.choices("abcdef", k=dice.randint(1, 5))) for _ in range(150)]
    pairs = [Pair(text, text[::-1]) for text in texts]
    small = {
        "d_model": 16,
        "d_ff": 24,
        "num_heads": 2,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "dropout": 0.2,
    }
    training = {
        "batch_tokens": 64,
        "accumulate": 2,
        "learning_rate": 0.02,
        "warmup_steps": 10,
        "max_steps": steps,
        "validations": steps // 2,
        "patience": 0,
        "average": KEPT,
        "eval_pairs": 5,
        "precision": "float32",
        "device": "cpu",
    }
    config = Config.model_validate(
        {
            "tokenizer": {"source": "words", "target": "words", "joint": False},
            "model": small | MODELS[kind],
            "training": training,
        }
    )
    train(
        pairs[:130],
        out,
        dev=pairs[130:],
        config=None if resume else config,
        resume=resume,
        listener=listener,
        wanted=wanted,
    )


class Telling:
    """A listener that writes a line for each event, so that whoever kills knows where the training is."""

    def started(self, model: Any, resumed: bool) -> None:
        say("started")

    def stepped(self, report: Any) -> None:
        say("stepped")

    def finished(self, kept: Any) -> None:
        pass

    def validated(self, step: int, validation: Any, best: bool) -> None:
        say("validated")


def say(word: str) -> None:
    os.write(1, f"{word}\n".encode())


def serve() -> None:
    """For each line of stdin (out, kind, resume): a process that trains; its id, its events, how it ended.

    Its id stays taken until the next line, so that a late kill cannot meet a stranger.
    """
    import torch
    import torch._dynamo  # what the optimiser would import in each fork

    import antiphon.plots
    import antiphon.training.train  # noqa: F401 - so that the forks need not

    torch.set_num_threads(1)
    child = 0
    for line in sys.stdin:
        if child:
            os.waitpid(child, 0)
        out, kind, resume = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                train_toy(Path(out), kind, resume, Telling())
            except BaseException as error:
                sys.stderr.write(f"{error!r}\n")
                os._exit(1)
            os._exit(0)
        say(f"pid {child}")
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        say(f"ended {ended.si_status}")


class Server:
    """The server as seen from the test."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.pid = 0
        self.status: int | None = None

    def begin(self, out: Path, kind: str, resume: bool) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([str(out), kind, resume]) + "\n")
        self.process.stdin.flush()
        self.pid, self.status = 0, None
        while not self.pid:
            word = self.read()
            if word.startswith("pid "):
                self.pid = int(word.split()[1])

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server is gone"
        return line.strip()

    def wait_for(self, word: str, count: int) -> None:
        """Until `word` was read so many times, or the training ended."""
        while count and self.status is None:
            line = self.read()
            count -= line == word
            if line.startswith("ended"):
                self.status = int(line.split()[1])

    def kill(self) -> bool:
        """kill -9; whether it hit a living training."""
        os.kill(self.pid, signal.SIGKILL)
        return self.end() == signal.SIGKILL

    def end(self) -> int:
        """0, or the signal that ended it."""
        self.wait_for("ended", 1)
        assert self.status is not None
        return self.status


@contextmanager
def server() -> Iterator[Server]:
    environment = os.environ | {
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "agg",
    }
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    with process:
        yield Server(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def wait_until(there: Callable[[], bool], seconds: float = 2.0) -> None:
    limit = time.monotonic() + seconds
    while not there() and time.monotonic() < limit:
        pass


def kill_at_random_moments(served: Server, out: Path, kind: str, kills: int, dice: random.Random) -> int:
    """Begins and kills a training `kills` times; how many of them hit it alive."""
    hits = 0
    for number in range(kills):
        served.begin(out, kind, resume=(out / "config.json").exists())
        moment = ("beginning", "config", "started")[number] if number < 3 else dice.choice(("step", "save", "best"))
        if moment == "beginning":
            time.sleep(dice.random() * 0.02)
        elif moment == "config":
            wait_until((out / "config.json").exists)
        else:
            served.wait_for("started", 1)
            if moment != "started":
                served.wait_for("stepped", dice.randint(1, 6))
            time.sleep(dice.random() * 0.02)
            if moment == "save":
                wait_until((out / "checkpoints" / ".part").exists)
                time.sleep(dice.random() * 0.003)
            elif moment == "best":
                wait_until((out / ".model.safetensors.part").exists, 0.2)
        hits += served.kill()
    return hits


def told(out: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without times."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: line[key] for key in line if "second" not in key} for line in lines]


def assert_same_run(out: Path, expected: Path) -> None:
    """Losses, learning rates, metrics, weights, optimiser and places, bit for bit; everything but times."""
    from antiphon.training.checkpoint import validated

    assert told(out) == told(expected)
    assert (out / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    names, found = ([path.name for path in validated(run / "checkpoints", KEPT)] for run in (expected, out))
    assert found == names
    for name in names:
        parts = sorted(path.name for path in (expected / "checkpoints" / name).iterdir())
        assert sorted(path.name for path in (out / "checkpoints" / name).iterdir()) == parts
        for part in parts:
            found, wanted = ((folder / "checkpoints" / name / part).read_bytes() for folder in (out, expected))
            if part.endswith(".json"):
                clock = {"seconds": 0, "validating": 0}
                assert json.loads(found) | clock == json.loads(wanted) | clock
            else:
                assert found == wanted, f"{name}/{part}"


@pytest.mark.slow
def test_a_run_killed_again_and_again_is_one_that_never_stopped(tmp_path: Path) -> None:
    dice = random.Random(2)
    hits = 0
    with server() as served:
        for kind in MODELS:
            whole, out = tmp_path / f"{kind}-whole", tmp_path / kind
            served.begin(whole, kind, resume=False)
            assert served.end() == 0
            hits += kill_at_random_moments(served, out, kind, 15, dice)
            served.begin(out, kind, resume=True)
            assert served.end() == 0
            # updates, validations, their samples, and which weights were kept
            assert len(told(out)) == STEPS + 2 * (STEPS // 2) + 1
            assert_same_run(out, whole)
    assert hits >= 20


class After:
    """`wanted` until so many updates were made."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left >= 0


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    train_toy(out, "transformer", resume=False, steps=SHORT)
    return out


@pytest.mark.parametrize("stops", [[0], [1], [5, 8, 0, 3], [SHORT - 1], [SHORT]])
def test_a_run_that_was_asked_to_stop_goes_on_as_if_it_had_not(
    stops: list[int], never_stopped: Path, tmp_path: Path
) -> None:
    for number, count in enumerate(stops):
        train_toy(tmp_path, "transformer", resume=number > 0, wanted=After(count), steps=SHORT)
    train_toy(tmp_path, "transformer", resume=True)
    assert_same_run(tmp_path, never_stopped)


def test_a_finished_run_that_is_resumed_stays_as_it_is(never_stopped: Path) -> None:
    files = {path: path.read_bytes() for path in never_stopped.rglob("*") if path.is_file() and path.suffix != ".png"}
    train_toy(never_stopped, "transformer", resume=True)
    assert files == {path: path.read_bytes() for path in files}


if __name__ == "__main__":
    serve()
