"""Copying: a decoder that may take a token from its source, not only generate one (See et al. 2017, pointer-generator).

One head looks over the memory, and its weights are the probabilities to copy each token of the source; a gate decides
how much of the whole is copied. The rest is generated as ever. Both sides must share one vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.ids import PAD
from antiphon.model.attention import HIDDEN
from antiphon.model.layers import Memory, at_least_float32
from antiphon.model.state import DecodeState

KEYS, TOKENS = "copying_keys", "copying_tokens"  # what a DecodeState keeps of a source


class Copying(nn.Module):
    """Which tokens of the source are copied, and with what probability, for features of any decoder."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.query = nn.Linear(d_model, d_model)
        self.gate = nn.Linear(d_model, 1)

    def kept(self, memory: Memory) -> dict[str, Tensor]:
        """What decoding needs of the memory: keys (B, S, D) and tokens (B, S)."""
        return {KEYS: self.key(memory.values), TOKENS: memory.tokens}

    def forward(self, features: Tensor, keys: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, D), keys (B, S, D), tokens (B, S) -> the logarithm of how much is generated, (B, T, 1), and
        the probability that each place of the source is copied, (B, T, S); together they are 1."""
        query = self.query(features)
        with torch.autocast(features.device.type, enabled=False):
            scores = at_least_float32(query @ keys.transpose(1, 2)) * query.shape[-1] ** -0.5
            scores = scores.masked_fill((tokens == PAD).unsqueeze(1), HIDDEN)
            # Not as a product, which would round by the number of rows.
            gate = (features.to(scores.dtype) * self.gate.weight).sum(2, keepdim=True) + self.gate.bias
            return F.logsigmoid(-gate), torch.sigmoid(gate) * torch.softmax(scores, dim=-1)

    def of_targets(self, features: Tensor, memory: Memory, target_out: Tensor) -> Tensor:
        """features (B, T, D), the right tokens (B, T) -> (B, T, 2): the logarithms of how much is generated, and of the
        probability that the right token is copied."""
        generated, copied = self(features, **_named(self.kept(memory)))
        right = (memory.tokens.unsqueeze(1) == target_out.unsqueeze(2)).to(copied.dtype)
        return torch.cat([generated, _log((copied * right).sum(2, keepdim=True))], dim=2)

    def mix(self, logits: Tensor, features: Tensor, kept: dict[str, Tensor]) -> Tensor:
        """logits (B, T, V) of what is generated, features (B, T, D) -> log-probabilities (B, T, V) of both ways."""
        generated, copied = self(features, **_named(kept))
        probabilities = (logits.log_softmax(-1) + generated).exp()
        places = kept[TOKENS].unsqueeze(1).expand_as(copied)
        return _log(probabilities.scatter_add(2, places, copied.to(probabilities.dtype)))

    def step(self, logits: Tensor, features: Tensor, state: DecodeState) -> Tensor:
        """As `mix`, for one token a row: logits (N, V), features (N, D) -> log-probabilities (N, V)."""
        return state.unfold(self.mix(state.fold(logits), state.fold(features), state.shared))


def _named(kept: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"keys": kept[KEYS], "tokens": kept[TOKENS]}


def _log(probabilities: Tensor) -> Tensor:
    """Of 0, the logarithm of the smallest number, so that gradients stay finite."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
