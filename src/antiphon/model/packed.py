"""Linear layers for inference: weights brought once into the form that the processor multiplies fastest.

int8: every row of an input is scaled by its own largest element and every output channel by its own, and the sums of
their products are exact; so a row comes out the same to the last bit, whoever its neighbours are. bfloat16: rounded
inputs and weights, sums in float32. The operators are torch's private ones over oneDNN, so each is tried before it is
chosen.
"""

import time
from collections import Counter
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.model.seq2seq import Seq2Seq

Precision = Literal["float32", "bfloat16", "int8"]

NARROWEST = 64  # layers with fewer inputs or outputs stay as they are
LEVELS = 127  # of an int8, on each side of zero
TINY = 1e-30
TIMED_ROWS = 32
WORTH = 1.3  # a lower precision must be so much faster than float32 to be chosen
TOLERANCE = {"bfloat16": 0.01, "int8": 0.02}  # relative error of a product of normal numbers, in the self-test


class Int8Linear(nn.Module):
    """x @ weight.T + bias with both factors in int8; input and output in float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.scales = weight.abs().amax(1) / LEVELS + TINY
        self.offsets = torch.zeros(len(weight), dtype=torch.int64)
        rounded = (weight / self.scales.unsqueeze(1)).round_().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.bias = torch.zeros(1) if bias is None else bias.detach()
        self.tiny = torch.tensor(TINY)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D_in) -> (..., D_out)."""
        rows = x.reshape(-1, x.shape[-1])
        scale = torch.add(self.tiny, rows.abs().amax(1, keepdim=True), alpha=1 / LEVELS)
        # The operator is fast for unsigned inputs only; flipping the sign bit adds 128, which it takes off again.
        shifted = (rows / scale).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(128)
        sums = torch.ops.onednn.qlinear_pointwise(
            shifted, 1.0, 128, self.weight, self.scales, self.offsets, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return torch.addcmul(self.bias, sums, scale, out=sums).view(*x.shape[:-1], -1)


class BFloat16Linear(nn.Module):
    """x @ weight.T + bias with both factors in bfloat16; input and output in float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().bfloat16(), TIMED_ROWS)
        self.bias = None if bias is None else bias.detach().bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        """(..., D_in) -> (..., D_out)."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x.bfloat16(), self.weight, self.bias, "none", [], "")
        return y.float()


KINDS: dict[Precision, type[Int8Linear] | type[BFloat16Linear]] = {"int8": Int8Linear, "bfloat16": BFloat16Linear}


@torch.no_grad()
def pack(network: Seq2Seq, precision: Precision) -> None:
    """Replaces the network's wide linear layers by packed ones. It can decode then, and no longer be trained or saved.

    Raises ValueError where this build of torch, or the device, does not have the operators.
    """
    if precision == "float32":
        return
    if network.device.type != "cpu" or not _works(precision):
        raise ValueError(f"precision {precision!r} cannot be had here; take float32, or auto.")
    kind = KINDS[precision]
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and min(child.weight.shape) >= NARROWEST:
                setattr(module, name, kind(child.weight, child.bias))
    if min(network.output.shape) >= NARROWEST:
        network.decoder.head = kind(network.output, None)


@torch.no_grad()
def compare_precisions(network: Seq2Seq) -> dict[Precision, float]:
    """How many times faster than float32 the network's linear layers are in each precision that works here; 32 rows."""
    if network.device.type != "cpu":
        return {"float32": 1.0}
    shapes = Counter(tuple(layer.weight.shape) for layer in network.modules() if isinstance(layer, nn.Linear))
    shapes[tuple(network.output.shape)] += 1
    wide = {shape: count for shape, count in shapes.items() if min(shape) >= NARROWEST}
    working: list[Precision] = [name for name in KINDS if wide and _works(name)]
    seconds: dict[Precision, float] = dict.fromkeys(["float32", *working], 0.0)
    for (outputs, inputs), count in wide.items():
        x, weight = torch.randn(TIMED_ROWS, inputs), torch.randn(outputs, inputs)
        layers: dict[Precision, nn.Module] = {name: KINDS[name](weight, weight[:, 0]) for name in working}
        plain = nn.Linear(inputs, outputs, device="meta")
        plain.weight, plain.bias = nn.Parameter(weight), nn.Parameter(weight[:, 0])
        for name, layer in {"float32": plain, **layers}.items():
            seconds[name] += count * _seconds(layer, x)
    return {name: seconds["float32"] / spent if spent else 1.0 for name, spent in seconds.items()}


def fastest(gains: dict[Precision, float]) -> Precision:
    """Of `compare_precisions`: the fastest, if it is worth it."""
    best = max(gains, key=lambda name: gains[name])
    return best if gains[best] >= WORTH else "float32"


def _seconds(layer: nn.Module, x: Tensor) -> float:
    """The least of three."""
    layer(x)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        layer(x)
        times.append(time.perf_counter() - start)
    return min(times)


def _works(precision: Precision) -> bool:
    """The operators are there, right, and give a row alone what they give it beside a loud one."""
    x = torch.linspace(-3, 3, 8 * NARROWEST).sin_().view(8, NARROWEST)
    x[3] *= 1000
    weight = torch.linspace(-50, 50, 2 * NARROWEST * NARROWEST).cos_().view(-1, NARROWEST)
    try:
        layer = KINDS[precision](weight, weight[:, 0])
        found = layer(x)
        alone = torch.cat([layer(row.unsqueeze(0)) for row in x])
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    right = F.linear(x, weight, weight[:, 0])
    errors = (found - right).norm(dim=1) / right.norm(dim=1)
    return bool(torch.equal(found, alone) and errors.max() < TOLERANCE[precision])
