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

WHOLE = 16  # elements: a whole vector, or several, on any processor
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

    def forward(self, features: Tensor, keys: Tensor, tokens: Tensor, exact: bool = False) -> tuple[Tensor, Tensor]:
        """features (B, T, D), keys (B, S, D), tokens (B, S) -> gate (B, T, 1), whose sigmoid is how much is copied, and
        how much of that from each place of the source (B, T, S). exact: to the bit, whatever B, T and S."""
        query, length = self.query(features), tokens.shape[1]
        with torch.autocast(features.device.type, enabled=False):
            # Products round by the number of rows, sums of a row by whether it is made of whole vectors.
            products = (query.unsqueeze(2) * keys.unsqueeze(1)).sum(3) if exact else query @ keys.transpose(1, 2)
            scores = at_least_float32(products) * query.shape[-1] ** -0.5
            scores = scores.masked_fill((tokens == PAD).unsqueeze(1), HIDDEN)
            weights = torch.softmax(F.pad(scores, (0, -length % WHOLE), value=HIDDEN), dim=2)[..., :length]
            gate = (features.to(scores.dtype) * self.gate.weight).sum(2, keepdim=True) + self.gate.bias
            return gate, weights

    def of_targets(self, features: Tensor, memory: Memory, target_out: Tensor) -> Tensor:
        """features (B, T, D), the right tokens (B, T) -> (B, T, 2): the logarithms of how much is generated, and of the
        probability that the right token is copied."""
        gate, weights = self(features, self.key(memory.values), memory.tokens)
        right = (memory.tokens.unsqueeze(1) == target_out.unsqueeze(2)).to(weights.dtype)
        found = _log((weights * right).sum(2, keepdim=True))
        return torch.cat([F.logsigmoid(-gate), F.logsigmoid(gate) + found], dim=2)

    def mix(self, logits: Tensor, features: Tensor, kept: dict[str, Tensor], exact: bool = False) -> Tensor:
        """logits (B, T, V) of what is generated, features (B, T, D) -> log-probabilities (B, T, V) of both ways."""
        gate, weights = self(features, kept[KEYS], kept[TOKENS], exact)
        generated, copied = torch.softmax(torch.cat([torch.zeros_like(gate), gate], dim=2), dim=2).chunk(2, dim=2)
        places = kept[TOKENS].unsqueeze(1).expand_as(weights)
        probabilities = torch.softmax(logits, dim=2) * generated
        return _log(probabilities.scatter_add(2, places, (weights * copied).to(probabilities.dtype)))

    def step(self, logits: Tensor, features: Tensor, state: DecodeState) -> Tensor:
        """As `mix`, for one token a row: logits (N, V), features (N, D) -> log-probabilities (N, V)."""
        return state.unfold(self.mix(state.fold(logits), state.fold(features), state.shared, exact=True))


def _log(probabilities: Tensor) -> Tensor:
    """Of 0, the logarithm of the smallest number, so that gradients stay finite."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
