"""Hard monotonic attention: each token of the target is made at one place of the source, and places only move forward.

Which places they are is never told. The decoder keeps how probable each of them is, after the tokens that were written,
and a token's probability is the sum over all (Wu and Cotterell 2019, with their first-order alignments): in logarithms,
as every one may be improbable. For spellings, sounds and inflections: every token is scored at every place, so time
and memory grow with source length x vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from antiphon.model.attention import HIDDEN
from antiphon.model.dropout import Dropout
from antiphon.model.layers import Memory, at_least_float32
from antiphon.model.state import DecodeState

FARTHEST = 8  # tokens; a longer move is as probable, before anything is seen, as one of so many
KEYS, SIGHTS, MASK = "keys", "sights", "mask"  # what a DecodeState keeps of a source
PLACES, CHANCES = "places", "chances"  # and of a row

Score = Callable[[Tensor], Tensor]  # (..., D) -> logits (..., V)


class MonotoneAttention(nn.Module):
    """Where the decoder may move to from each place, and what it sees there."""

    def __init__(self, d_model: int, dropout: Dropout) -> None:
        super().__init__()
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.query = nn.Linear(d_model, d_model)
        self.farness = nn.Parameter(-torch.arange(FARTHEST + 1.0))
        self.sight = nn.Linear(d_model, d_model, bias=False)
        self.view = nn.Linear(d_model, d_model)
        self.dropout = dropout

    def forward(self, features: Tensor, memory: Memory, target_in: Tensor, score: Score) -> Tensor:
        """Teacher forcing: features (B, T, D), target_in (B, T) ids -> log-probabilities (B, T, V)."""
        moves = self._moves(features, self.key(memory.values), memory.mask)
        chances = self._chances(features, self.sight(memory.values), score)
        written = target_in[:, 1:, None, None].expand(-1, -1, chances.shape[2], 1)
        fitting = _log(chances[:, :-1].gather(3, written).squeeze(3))
        places = [moves[:, 0, 0]]
        for move, chance in zip(moves[:, 1:].unbind(1), fitting.unbind(1), strict=True):
            places.append(_moved(places[-1] + chance, move))
        return _summed(torch.stack(places, dim=1), chances)

    def start(self, memory: Memory, vocab_size: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What decoding needs of each source, and of each row: the place of its last token, the first one as yet."""
        places = torch.full_like(memory.mask, HIDDEN, dtype=at_least_float32(memory.values).dtype)
        places[:, 0] = 0
        shared = {KEYS: self.key(memory.values), SIGHTS: self.sight(memory.values), MASK: memory.mask}
        return shared, {PLACES: places, CHANCES: torch.ones_like(places).unsqueeze(2).repeat(1, 1, vocab_size)}

    def step(self, features: Tensor, tokens: Tensor, state: DecodeState, score: Score) -> Tensor:
        """features (N, D), the last token of each row (N,) -> log-probabilities (N, V); the state's places move on."""
        shared, past = state.shared, state.past
        length = shared[MASK].shape[1]  # longer sources may have left
        folded = state.fold(features)
        hidden = ~state.unfold(shared[MASK].unsqueeze(1).expand(-1, folded.shape[1], -1))
        fitting = past[CHANCES][:, :length].gather(2, tokens[:, None, None].expand(-1, length, 1)).squeeze(2)
        before = (past[PLACES][:, :length] + _log(fitting)).masked_fill(hidden, HIDDEN)
        past[PLACES] = _moved(before, state.unfold(self._moves(folded, shared[KEYS], shared[MASK])))
        past[CHANCES] = state.unfold(self._chances(folded, shared[SIGHTS], score))
        return _summed(past[PLACES].unsqueeze(1), past[CHANCES].unsqueeze(1)).squeeze(1)

    def weights(self, state: DecodeState) -> Tensor:
        """How probable each place is for the last step's token (N, S)."""
        return state.past[PLACES].exp()

    def _moves(self, features: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """features (B, T, D), keys (B, S, D), mask (B, S) -> log-probabilities of each move from place to place
        (B, T, S, S)."""
        wished = at_least_float32(self.query(features) @ keys.transpose(1, 2)) * keys.shape[-1] ** -0.5
        place = torch.arange(keys.shape[1], device=keys.device)
        ahead = place - place.unsqueeze(1)
        scores = wished.unsqueeze(2) + self.farness[ahead.clamp(0, FARTHEST)]
        return torch.log_softmax(scores.masked_fill((ahead < 0) | ~mask[:, None, None], HIDDEN), dim=3)

    def _chances(self, features: Tensor, sights: Tensor, score: Score) -> Tensor:
        """features (B, T, D), sights (B, S, D) -> how probable each token is at each place (B, T, S, V)."""
        seen = torch.tanh(self.view(features).unsqueeze(2) + sights.unsqueeze(1))
        return torch.softmax(at_least_float32(score(self.dropout(seen))), dim=3)


def _moved(places: Tensor, move: Tensor) -> Tensor:
    """places (B, S), unscaled, and move (B, S, S) -> places (B, S), all logarithms."""
    return torch.log_softmax(torch.logsumexp(places.unsqueeze(2) + move, dim=1), dim=1)


def _summed(places: Tensor, chances: Tensor) -> Tensor:
    """Logarithms of places (B, T, S), chances (B, T, S, V) -> log-probabilities (B, T, V)."""
    with torch.autocast(places.device.type, enabled=False):
        return _log((places.exp().unsqueeze(2) @ chances).squeeze(2))


def _log(probabilities: Tensor) -> Tensor:
    """Of 0, the logarithm of the smallest number, so that gradients stay finite."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
