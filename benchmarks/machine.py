"""The machine a figure was measured on, and the matrix products it can do."""

import platform
from collections.abc import Iterator
from pathlib import Path

import torch

EDGE = 4096  # of the square matrices whose product is called the peak
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8")


def facts() -> dict[str, str]:
    """What a reader needs to know to compare a figure."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(told.get("flags", "").split())
    with Path("/proc/loadavg").open(encoding="utf-8") as file:
        load = file.read().split()[0]
    return {
        "processor": told.get("model name", platform.processor()),
        "cores": str(sum(line.startswith("processor") for line in lines)),
        "flags": " ".join(flag for flag in FLAGS if flag in flags) or "none that matter",
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load before": load,
    }


def print_facts() -> None:
    print("machine: " + " | ".join(f"{name} {value}" for name, value in facts().items()), flush=True)


def matrix_products(dtype: torch.dtype) -> Iterator[int]:
    """Multiplies two large square matrices again and again; yields the operations of each product."""
    left, right = (torch.randn(EDGE, EDGE).to(dtype) for _ in range(2))
    out = torch.empty(EDGE, EDGE, dtype=dtype)
    while True:
        torch.mm(left, right, out=out)
        yield 2 * EDGE**3
