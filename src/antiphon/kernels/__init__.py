"""What surrounds the matrix products when a model decodes, in C++: each of it one pass over its rows.

kernels.cpp is built once for the processor at hand, in a second or two, when it is first needed, and kept in the user's
cache folder. Layers in int8 need it, and so does every search on the processor, which chooses its candidates here: in
float32 too, and so the first validation of a training. Where there is no C++ compiler, or it fails, both do the same in
torch's own operators. All tensors are float32 on the processor, contiguous but for what is said, and rows are
independent.
"""

import ctypes
import hashlib
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).parent
SOURCES = [HERE / name for name in ("kernels.cpp", "stack.cpp", "kernels.h")]
FLAGS = (
    *("-O3", "-march=native", "-mprefer-vector-width=512", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only", "-fno-signed-zeros", "-fassociative-math"),
)
KINDS = {"p": ctypes.c_void_p, "n": ctypes.c_int64, "d": ctypes.c_double}
SIGNATURES = {
    "quantize_rows": "pnnpp",
    "scale_rows": "pppnn",
    "gelu_quantize_rows": "pppnnpp",
    "linear": "pnnnppppp",
    "feed_forward": "pnnnppppppppp",
    "attend_past": "pnnnppnppnpppnppp",
    "attend_memory": "pnnnppppnpp",
    "attend_among": "pnnnnppppnpp",
    "normalize_rows": "pppdnnp",
    "embed_rows": "pdpppnnp",
    "gate_rows": "pnnp",
    "recur_rows": "pnnpp",
    "log_softmax_rows": "pnn",
    "best_tokens": "pnnnnppnppppp",
    "step_decoder": "ppnppppnpppppp",
    "encode": "ppnnpppp",
    "keep_memory": "pnnpppp",
}
VECTOR = 16  # scores have room for whole vectors
WIDEST_HEAD = 512


@cache
def library() -> ctypes.CDLL | None:
    """The built kernels; None where they cannot be had."""
    try:
        built = _cached()
    except (OSError, RuntimeError, subprocess.SubprocessError):  # no home, or none that can be written to
        try:
            with tempfile.TemporaryDirectory() as folder:
                built = ctypes.CDLL(str(_build(Path(folder))))
        except (OSError, subprocess.SubprocessError):
            return None
    built.can_multiply.restype = ctypes.c_int64
    for name, kinds in SIGNATURES.items():
        function = getattr(built, name)
        function.argtypes = [KINDS[kind] for kind in kinds]
        function.restype = None
    return built


def _cached() -> ctypes.CDLL:
    """The kernels in the user's cache folder, built when they are not there."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "antiphon"
    known = (*(source.read_bytes() for source in SOURCES), _compiler().encode(), " ".join(FLAGS).encode(), _processor())
    file = folder / f"kernels-{hashlib.sha256(b'|'.join(known)).hexdigest()[:16]}.so"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            _build(Path(aside)).replace(file)
    return ctypes.CDLL(str(file))


def _build(folder: Path) -> Path:
    """The shared library, built in a folder. Raises an error of subprocess where the compiler fails."""
    file = folder / "kernels.so"
    command = [_compiler(), *FLAGS, "-o", str(file), *(str(source) for source in SOURCES if source.suffix == ".cpp")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return file


def _compiler() -> str:
    """Raises OSError where there is none."""
    found = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "c++", "g++", "clang++"))), None)
    if found is None:
        raise FileNotFoundError("no C++ compiler")
    return found


def _processor() -> bytes:
    """What tells this processor's instructions from another's that shares the home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return b""
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags"))})).encode()


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (N, D) -> uint8 (N, D) with 128 for zero, and the scale of each row (N,): its largest element over 127."""
    bits, scales = torch.empty(x.shape, dtype=torch.uint8), torch.empty(len(x))
    _call().quantize_rows(x.data_ptr(), *x.shape, bits.data_ptr(), scales.data_ptr())
    return bits, scales


def scale_rows(sums: Tensor, scales: Tensor, bias: Tensor | None) -> None:
    """sums (N, D) becomes sums * scales + bias, in place."""
    _call().scale_rows(sums.data_ptr(), scales.data_ptr(), _pointer(bias), *sums.shape)


def gelu_quantize_rows(sums: Tensor, scales: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """quantize_rows(gelu(sums * scales + bias)); sums (N, D) is overwritten."""
    bits, new = torch.empty(sums.shape, dtype=torch.uint8), torch.empty(len(sums))
    place = (bits.data_ptr(), new.data_ptr())
    _call().gelu_quantize_rows(sums.data_ptr(), scales.data_ptr(), bias.data_ptr(), *sums.shape, *place)
    return bits, new


@cache
def most_rows() -> int:
    """How many rows `linear` and `feed_forward` are the fastest for: none where the processor has no AVX-512 with VNNI,
    few where it has AMX, which they do not use."""
    built = library()
    if built is None or not built.can_multiply():
        return 0
    return 16 if b"amx_int8" in _processor() else sys.maxsize


def arrange(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight (D_out, D_in), int8, D_in a multiple of 4 -> as `linear` reads it, with outputs filled up to 64;
    and 128 x the sum of each output's weights, which inputs with 128 for zero add to its products."""
    outputs, inputs = weight.shape
    filled = torch.zeros(-(-outputs // 64) * 64, inputs, dtype=torch.int8)
    filled[:outputs] = weight
    arranged = filled.view(-1, 64, inputs // 4, 4).transpose(1, 2).contiguous()
    return arranged, 128 * filled.sum(1, dtype=torch.int32)


def pointers(arranged: tuple[Tensor, Tensor], weight_scales: Tensor, bias: Tensor | None) -> tuple[int | None, ...]:
    """Where the weights of a layer lie, as `linear` and `feed_forward` want to know; they must stay there."""
    return arranged[0].data_ptr(), weight_scales.data_ptr(), arranged[1].data_ptr(), _pointer(bias)


def linear(x: Tensor, outputs: int, weights: tuple[int | None, ...]) -> Tensor:
    """x (N, D_in) -> (N, D_out): the exact product of its quantized rows, scaled, plus the bias."""
    out = torch.empty(x.shape[0], outputs)
    _call().linear(x.data_ptr(), *x.shape, outputs, *weights, out.data_ptr())
    return out


def feed_forward(x: Tensor, inner: int, weights: tuple[int | None, ...]) -> Tensor:
    """x (N, D) -> (N, D): two layers and the GELU between them in one call; weights: those of both."""
    out = torch.empty(x.shape)
    _call().feed_forward(x.data_ptr(), *x.shape, inner, *weights, out.data_ptr())
    return out


def attend_past(
    qkv: Tensor,
    heads: int,
    ages: Tensor,
    paths: Tensor,
    past: tuple[Tensor, Tensor],
    rotation: tuple[Tensor, Tensor] | None,
    bias: Tensor | None,
) -> Tensor:
    """qkv (N, 3 x D): each row's new token, which attends to itself and those before -> (N, D).

    past: keys and values (P, C, H, K), bfloat16. Of row n, token l lies in slot paths[n, l], at l; the new one, at the
    row's age, is written there. rotation: cosines and sines (N, K / 2). bias (N, H, L).
    """
    rows, width, (keys, values) = len(qkv), qkv.shape[1] // 3 // heads, past
    capacity = keys.shape[1]
    out, scores, places = torch.empty(rows, heads * width), _scores(capacity), torch.empty(capacity, dtype=torch.long)
    turn = (None, None) if rotation is None else (rotation[0].data_ptr(), rotation[1].data_ptr())
    _call().attend_past(
        *(qkv.data_ptr(), rows, heads, width, ages.data_ptr(), paths.data_ptr(), paths.shape[1]),
        *(keys.data_ptr(), values.data_ptr(), capacity, *turn, _pointer(bias), 0 if bias is None else bias.shape[-1]),
        *(places.data_ptr(), scores.data_ptr(), out.data_ptr()),
    )
    return out


def attend_memory(queries: Tensor, heads: int, slots: Tensor, lengths: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """queries (N, D) -> (N, D). Row n looks at the first lengths[n] of keys and values (P, C, H, K), bfloat16, in
    slots[n]."""
    rows, width, capacity = len(queries), queries.shape[1] // heads, keys.shape[1]
    out, scores = torch.empty(rows, heads * width), _scores(capacity)
    places = (slots.data_ptr(), lengths.data_ptr(), keys.data_ptr(), values.data_ptr(), capacity)
    _call().attend_memory(queries.data_ptr(), rows, heads, width, *places, scores.data_ptr(), out.data_ptr())
    return out


def attend_among(
    qkv: Tensor, heads: int, lengths: Tensor, rotation: tuple[Tensor, Tensor] | None, bias: Tensor | None
) -> Tensor:
    """qkv (B, S, 3 x D): each token attends to all of its source, lengths (B,) -> (B, S, D), zero on padding. qkv is
    turned in place by the rotation: cosines and sines (S, K / 2). bias (H, S, S)."""
    sources, longest, triple = qkv.shape
    out, scores = torch.empty(sources, longest, triple // 3), _scores(longest)
    turn = (None, None) if rotation is None else (rotation[0].data_ptr(), rotation[1].data_ptr())
    places = (lengths.data_ptr(), *turn, _pointer(bias), longest, scores.data_ptr(), out.data_ptr())
    _call().attend_among(qkv.data_ptr(), sources, longest, heads, triple // 3 // heads, *places)
    return out


def embed_rows(table: Tensor, factor: float, waves: Tensor | None, tokens: Tensor, positions: Tensor) -> Tensor:
    """tokens and their positions (N,), table (V, D) -> factor * table[token] + waves[position], (N, D)."""
    out = torch.empty(len(tokens), table.shape[1])
    places = (_pointer(waves), tokens.data_ptr(), positions.data_ptr())
    _call().embed_rows(table.data_ptr(), factor, *places, *out.shape, out.data_ptr())
    return out


def normalize_rows(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The layer norm of x (N, D)."""
    out = torch.empty(x.shape)
    _call().normalize_rows(x.data_ptr(), weight.data_ptr(), bias.data_ptr(), eps, *x.shape, out.data_ptr())
    return out


def gate_rows(both: Tensor) -> Tensor:
    """both (N, 2 x D): gates and what they let through -> gelu(gates) times that, (N, D)."""
    out = torch.empty(both.shape[0], both.shape[1] // 2)
    _call().gate_rows(both.data_ptr(), *out.shape, out.data_ptr())
    return out


def recur_rows(gates: Tensor, cells: Tensor) -> Tensor:
    """gates (N, 2 x D): what is new, and what keeps the old, before its sigmoid; cells (N, D) are brought up to date
    -> relu of them, (N, D)."""
    out = torch.empty(cells.shape)
    _call().recur_rows(gates.data_ptr(), *cells.shape, cells.data_ptr(), out.data_ptr())
    return out


def can_choose(logits: Tensor) -> bool:
    """`log_softmax_rows` and `best_tokens` can read them."""
    here = logits.device.type == "cpu" and logits.dtype == torch.float32 and logits.is_contiguous()
    return here and library() is not None


def log_softmax_rows(logits: Tensor) -> None:
    """logits (N, V) become log-probabilities, in place."""
    _call().log_softmax_rows(logits.data_ptr(), *logits.shape)


def best_tokens(
    x: Tensor, raw: bool, first: int, counts: Sequence[int], widths: Sequence[int], scores: Sequence[float]
) -> list[tuple[list[int], list[int], list[float]]]:
    """x (N, V), log-probabilities, or logits if raw: the rows of searches, `counts` of each -> for each search the
    widths[s] best, by the scores of its rows plus theirs: rows of the search, tokens, log-probabilities, best first.
    Tokens below `first` are never chosen."""
    searches, widest = len(counts), max(widths)
    found = (ctypes.c_int64 * searches)()
    rows, tokens = ((ctypes.c_int64 * (searches * widest))() for _ in range(2))
    log_probs = (ctypes.c_float * (searches * widest))()
    given = ((ctypes.c_int64 * searches)(*counts), (ctypes.c_int64 * searches)(*widths))
    _call().best_tokens(
        *(x.data_ptr(), x.shape[1], first, raw, searches, *given, widest),
        *((ctypes.c_double * len(scores))(*scores), found, rows, tokens, log_probs),
    )
    places = [slice(start, start + count) for start, count in zip(range(0, len(rows), widest), found, strict=True)]
    return [(rows[place], tokens[place], log_probs[place]) for place in places]


def _call() -> ctypes.CDLL:
    found = library()
    assert found is not None
    return found


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _scores(length: int) -> Tensor:
    return torch.empty(math.ceil(length / VECTOR) * VECTOR)
