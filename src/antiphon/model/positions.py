"""How a transformer knows the order of its tokens: sinusoidal, rotary or relative.

Each kind says what it adds to the embeddings (`embed`), and what self-attention needs (`frame`): a rotation of queries
and keys, or a bias on the scores. Positions are given as tensors, so rows of different ages can share a step.
"""

import math
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Frame(NamedTuple):
    """What one stack of self-attention layers shares in one call.

    rotation: (cos, sin), each (..., 1, T, K / 2). bias: (..., H, T, S), added to the scores; hidden: added too, hides
    what may not be seen. lengths (B,): of sources whose tokens see all of their own source. ages (N,): the place of the
    one token of each row, which sees itself and those before.
    """

    rotation: tuple[Tensor, Tensor] | None
    bias: Tensor | None
    hidden: Tensor | None = None
    lengths: Tensor | None = None
    ages: Tensor | None = None

    def added(self) -> Tensor | None:
        """All that is added to the scores."""
        if self.bias is None or self.hidden is None:
            return self.hidden if self.bias is None else self.bias
        return self.bias + self.hidden


class Positions(Protocol):
    """A kind of positions."""

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """x (..., T, D) with what this kind adds at `positions` (..., T)."""

    def frame(self, positions: Tensor, num_keys: int) -> Frame:
        """For queries at `positions` (T,) or (N, T), and keys at 0 ... num_keys - 1."""


class SinusoidalPositions(nn.Module):
    """Sines and cosines of geometrically spaced wavelengths, added to the embeddings (Vaswani et al. 2017).

    The first token stands at 1, as in fairseq and the models of its family, so that weights can travel.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        half = (self.d_model + 1) // 2
        rates = torch.exp(torch.arange(half, device=x.device) * (-math.log(10000.0) / max(half - 1, 1)))
        angles = (positions.unsqueeze(-1) + 1) * rates
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)[..., : self.d_model]
        return x + waves.to(x.dtype)

    def frame(self, positions: Tensor, num_keys: int) -> Frame:
        return Frame(None, None)


class RotaryPositions(nn.Module):
    """Queries and keys turned by an angle that grows with their position (Su et al. 2021)."""

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.head_width = head_width

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x

    def frame(self, positions: Tensor, num_keys: int) -> Frame:
        half = self.head_width // 2
        rates = torch.exp(torch.arange(half, device=positions.device) * (-math.log(10000.0) / half))
        angles = (positions.unsqueeze(-1) * rates).unsqueeze(-3)
        return Frame((angles.cos(), angles.sin()), None)


class RelativePositions(nn.Module):
    """A learned bias for each head and distance, far ones in logarithmic buckets (Raffel et al. 2020, section 2.1)."""

    def __init__(self, num_heads: int, causal: bool, num_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        self.causal = causal
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.table = nn.Embedding(num_buckets, num_heads)
        nn.init.normal_(self.table.weight, std=0.1)

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x

    def frame(self, positions: Tensor, num_keys: int) -> Frame:
        keys = torch.arange(num_keys, device=positions.device)
        bias: Tensor = self.table(self._bucket(keys - positions.unsqueeze(-1)))
        return Frame(None, bias.movedim(-1, -3))

    def _bucket(self, distance: Tensor) -> Tensor:
        """(..., T, S) key minus query position -> bucket."""
        buckets = self.num_buckets
        if self.causal:
            offset = torch.zeros_like(distance)
            distance = (-distance).clamp(min=0)
        else:
            buckets //= 2
            offset = (distance > 0) * buckets
            distance = distance.abs()
        exact = buckets // 2
        scale = (buckets - exact) / math.log(self.max_distance / exact)
        far = exact + (torch.log(distance.clamp(min=1) / exact) * scale).long().clamp(max=buckets - exact - 1)
        return offset + torch.where(distance < exact, distance, far)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
    """x (B, H, T, K): channel i of the first half and of the second, turned together by their angle."""
    if rotation is None:
        return x
    turned: Tensor = _Rotate.apply(x, rotation[0].to(x.dtype), rotation[1].to(x.dtype))  # type: ignore[no-untyped-call]
    return turned


class _Rotate(torch.autograd.Function):
    """Four passes over half of x; the gradient turns back by the same angle."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    out = torch.empty_like(x)
    out_first, out_second = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=out_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out_second).addcmul_(first, sin)
    return out
