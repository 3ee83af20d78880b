"""Environments for the peers that Antiphon is measured against: one each, never Antiphon's own.

    python benchmarks/peers.py                          # all of them: some minutes, a few GB
    python benchmarks/peers.py ctranslate2 huggingface

Each lies in benchmarks/.peers/NAME (git does not see it) with exactly the releases named here. torch goes first and is
named again with the rest, so that no dependency brings another build; what was installed is written beside it and
checked. A peer that is there already is left alone; delete its folder to have it made again.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / ".peers"
RECORD = "installed.json"
TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Peer:
    """requirements: for pip, in that order, one call each. told: packages whose versions matter. check: its import."""

    requirements: tuple[tuple[str, ...], ...]
    told: tuple[str, ...]
    check: str


PEERS = {
    "ctranslate2": Peer(
        (("ctranslate2==4.8.5", "numpy"), ("ctranslate2==4.8.5", "tokenizers", "fastapi", "uvicorn[standard]")),
        ("ctranslate2", "tokenizers", "fastapi", "uvicorn", "uvloop"),
        "import ctranslate2, fastapi, tokenizers, uvicorn, uvloop",
    ),
    "huggingface": Peer(
        ((TORCH, "numpy"), (TORCH, "transformers==5.24.0", "safetensors")),
        ("torch", "transformers"),
        "from transformers import M2M100ForConditionalGeneration, MarianMTModel",
    ),
    "joeynmt": Peer(
        ((TORCH, "numpy"), (TORCH, "joeynmt==2.3.0", "importlib_metadata", "sentencepiece==0.2.0")),
        ("torch", "joeynmt"),
        "from joeynmt.model import build_model",
    ),
    "eole": Peer(
        ((TORCH, "numpy"), (TORCH, "eole==0.6.4", "aiohttp")),
        ("torch", "eole"),
        "import eole.trainer, eole.models.model",
    ),
}


def install(name: str, folder: Path) -> None:
    """Makes the environment, unless what is there is what is asked for."""
    home, peer = folder / name, PEERS[name]
    if (home / RECORD).exists():
        if read_record(home)["requirements"] == [list(words) for words in peer.requirements]:
            return
        raise SystemExit(f"{home}: was made for other releases than are asked for now; delete it, and run this again.")
    print(f"{name}: installing into {home}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    builds = []
    for words in peer.requirements:
        subprocess.run([str(python_of(home)), "-m", "pip", "install", "-qq", *words], check=True)
        builds.append(versions(home, ("torch",)))
    if any(build != builds[0] for build in builds):
        raise SystemExit(f"{name}: a dependency replaced torch: {builds}; nothing can be compared with that.")
    subprocess.run([str(python_of(home)), "-W", "ignore", "-c", peer.check], check=True)
    record = {"requirements": peer.requirements, "versions": versions(home, peer.told)}
    (home / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def python_of(home: Path) -> Path:
    return home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def read_record(home: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((home / RECORD).read_text(encoding="utf-8"))
    return found


def versions(home: Path, packages: Sequence[str]) -> dict[str, str]:
    """The installed version of each, and of Python; a package that is not there is left out."""
    script = (
        "import json, platform, sys; from importlib.metadata import distributions as all\n"
        "found = {d.metadata['Name'].lower(): d.version for d in all()}\n"
        "told = {name: found[name] for name in sys.argv[1:] if name in found}\n"
        "print(json.dumps({**told, 'python': platform.python_version()}))"
    )
    done = subprocess.run([str(python_of(home)), "-c", script, *packages], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def interpreter(name: str, folder: Path = FOLDER) -> str:
    """The Python of a peer that is installed; else stops, and says how to install it."""
    home = folder / name
    if not (home / RECORD).exists():
        raise SystemExit(f"{name} is not installed in {home}; run: python benchmarks/peers.py {name}")
    return str(python_of(home))


def told(name: str, folder: Path = FOLDER) -> str:
    """In words, what is installed for a peer."""
    found = read_record(folder / name)["versions"]
    assert isinstance(found, dict)
    return f"{name}: " + ", ".join(f"{package} {version}" for package, version in found.items())


def export(run: Path, peer: str, folder: Path) -> str:
    """The folder of a run as a peer reads it: `folder`/`peer`, made by `antiphon export` unless it is there."""
    out = folder / peer
    if not out.exists():
        command = [str(Path(sys.executable).parent / "antiphon"), "export", str(run), str(out), "--format", peer]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return str(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Installs peers, each into an environment of its own.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PEERS)}; none: all of them")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the environments lie")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in PEERS]
    if unknown:
        parser.error(f"no peer is called {unknown[0]!r}; there are {', '.join(PEERS)}.")
    for name in args.names or PEERS:
        install(name, args.folder)
        print(told(name, args.folder), flush=True)


if __name__ == "__main__":
    main()
