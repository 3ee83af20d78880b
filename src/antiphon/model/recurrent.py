"""The recurrent encoder and decoder: GRU or LSTM, in several layers, with attention or without.

Without attention the decoder knows the source through one vector alone, the encoder's summary, from which its first
hidden state is made (Sutskever et al. 2014; Cho et al. 2014). With attention it also looks at the memory at each step
(Bahdanau et al. 2015; Luong et al. 2015), and with input feeding it is told what it attended to one step before. Where
attention is monotone (monotone.py) it writes without looking, and what it writes is read at every place of the source.
"""

import torch
from torch import Tensor, nn

from antiphon.model.attention import RecurrentAttention
from antiphon.model.copying import Copying
from antiphon.model.dropout import Dropout
from antiphon.model.layers import Memory, TokenEmbedding, at_least_float32, score_tokens
from antiphon.model.monotone import MonotoneAttention
from antiphon.model.positions import Frame
from antiphon.model.state import DecodeState

Hidden = tuple[Tensor, ...]  # (h,) of a GRU, (h, c) of an LSTM, each (B, D)


class RecurrentLayer(nn.Module):
    """One layer in one direction; over a whole sequence, or one token a row with the same weights."""

    def __init__(self, kind: str, input_width: int, width: int) -> None:
        super().__init__()
        self.kind = kind
        cells = {"gru": nn.GRU, "lstm": nn.LSTM}
        self.cells = cells[kind](input_width, width, batch_first=True)
        # The same weights as two linear layers, for one token at a time.
        self.input_gates, self.hidden_gates = (nn.Linear(n, 1, device="meta") for n in (input_width, width))
        self.input_gates.weight, self.input_gates.bias = self.cells.weight_ih_l0, self.cells.bias_ih_l0
        self.hidden_gates.weight, self.hidden_gates.bias = self.cells.weight_hh_l0, self.cells.bias_hh_l0

    def forward(self, x: Tensor, hidden: Hidden) -> Tensor:
        """x (B, T, D_in), hidden at the start -> outputs (B, T, D)."""
        start = tuple(part.unsqueeze(0) for part in hidden)
        out: Tensor = self.cells(x, start if self.kind == "lstm" else start[0])[0]
        return out

    def step(self, x: Tensor, hidden: Hidden) -> Hidden:
        """x (N, D_in) -> the next hidden state, whose first part is the output (N, D)."""
        from_input, from_hidden = self.input_gates(x), self.hidden_gates(hidden[0])
        if self.kind == "lstm":
            admit, forget, new, show = (from_input + from_hidden).chunk(4, dim=-1)
            cell = torch.sigmoid(forget) * hidden[1] + torch.sigmoid(admit) * torch.tanh(new)
            return torch.sigmoid(show) * torch.tanh(cell), cell
        width = hidden[0].shape[-1]
        reset, update = torch.sigmoid(from_input[..., : 2 * width] + from_hidden[..., : 2 * width]).chunk(2, dim=-1)
        new = torch.tanh(torch.addcmul(from_input[..., 2 * width :], reset, from_hidden[..., 2 * width :]))
        return (torch.lerp(new, hidden[0], update),)


class SSRU(nn.Module):
    """The simpler simple recurrent unit, in the place of a decoder's self-attention (Kim et al. 2019).

    c = f * c + (1 - f) * W x with a forget gate f that sees the token alone; the output is ReLU(c). A row's past is one
    vector, and its step one product.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.project = nn.Linear(d_model, 2 * d_model)

    def forward(self, x: Tensor, frame: Frame) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        new, forget = self._gates(x)
        cell = torch.zeros_like(new[:, 0])
        cells = []
        for now, kept in zip(new.unbind(1), forget.unbind(1), strict=True):
            cell = torch.lerp(now, cell, kept)
            cells.append(cell)
        return torch.relu(torch.stack(cells, dim=1)).to(x.dtype)

    def start(self, index: int, memory: Tensor) -> dict[str, Tensor]:
        """The cell of layer `index`; memory (B, S, D)."""
        return {f"cell{index}": torch.zeros_like(memory[:, 0])}

    def step(self, x: Tensor, frame: Frame, state: DecodeState, index: int) -> Tensor:
        """x (N, D), a new token a row -> (N, D)."""
        new, forget = self._gates(x)
        cell = state.past[f"cell{index}"] = torch.lerp(new, state.past[f"cell{index}"], forget)
        return torch.relu(cell)

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) -> what would be new, and how much of the old is kept; never in less than float32."""
        new, forget = at_least_float32(self.project(x)).chunk(2, dim=-1)
        return new, torch.sigmoid(forget)


class RecurrentEncoder(nn.Module):
    """Reads the source in one direction, or in both with half the width for each."""

    def __init__(
        self, embedding: TokenEmbedding, kind: str, num_layers: int, bidirectional: bool, dropout: Dropout
    ) -> None:
        super().__init__()
        width = embedding.weight.shape[1]
        self.embedding = embedding
        self.kind = kind
        self.width = width // 2 if bidirectional else width
        self.forwards = nn.ModuleList(RecurrentLayer(kind, width, self.width) for _ in range(num_layers))
        self.backwards = nn.ModuleList(
            RecurrentLayer(kind, width, self.width) for _ in range(num_layers if bidirectional else 0)
        )
        self.dropout = dropout

    def forward(self, source: Tensor, mask: Tensor) -> Memory:
        """source (B, S) ids, mask (B, S) -> Memory; its summary is the top layer's last state in each direction."""
        last = mask.sum(1) - 1
        rows = torch.arange(len(source), device=source.device)
        backwards = (last.unsqueeze(1) - torch.arange(source.shape[1], device=source.device)).clamp(min=0)
        x = self.dropout(self.embedding(source))
        zeros = x.new_zeros(len(source), self.width)
        start: Hidden = (zeros, zeros) if self.kind == "lstm" else (zeros,)
        for depth, layer in enumerate(self.forwards):
            outputs = [layer(x, start)]
            ends = [outputs[0][rows, last]]
            if self.backwards:
                reverse = self.backwards[depth](_take(x, backwards), start)
                ends.append(reverse[rows, last])
                outputs.append(_take(reverse, backwards))
            out = self.dropout(torch.cat(outputs, dim=-1))
            x = out if depth == 0 else x + out
        return Memory(x * mask.unsqueeze(-1).to(x.dtype), mask, torch.cat(ends, dim=-1), source)


def _take(x: Tensor, places: Tensor) -> Tensor:
    """x (B, S, D) at places (B, S) of each row -> (B, S, D)."""
    return x.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class RecurrentDecoder(nn.Module):
    """Predicts each next token from a hidden state, the last token, and what it attends to."""

    def __init__(
        self,
        embedding: TokenEmbedding,
        kind: str,
        num_layers: int,
        attention: RecurrentAttention | None,
        input_feeding: bool,
        output: Tensor,
        copying: Copying | None,
        monotone: MonotoneAttention | None,
        dropout: Dropout,
    ) -> None:
        super().__init__()
        width = embedding.weight.shape[1]
        self.embedding = embedding
        self.kind = kind
        self.attention = attention
        self.feeding = input_feeding and attention is not None
        self.layers = nn.ModuleList(
            RecurrentLayer(kind, 2 * width if depth == 0 and self.feeding else width, width)
            for depth in range(num_layers)
        )
        self.bridges = nn.ModuleList(nn.Linear(width, width) for _ in range(num_layers))
        self.combine = nn.Linear(2 * width, width) if attention is not None else None
        self.output = output
        self.head: nn.Module | None = None
        self.copying = copying
        self.monotone = monotone
        self.dropout = dropout

    def features(self, memory: Memory, target_in: Tensor) -> Tensor:
        """Teacher forcing: target_in (B, T) ids -> what the output weights will score, (B, T, D)."""
        x: Tensor = self.dropout(self.embedding(target_in))
        if self.feeding:
            return self._features_step_by_step(memory, x)
        for depth, (layer, hidden) in enumerate(zip(self.layers, self._start_hidden(memory), strict=True)):
            out: Tensor = self.dropout(layer(x, hidden))
            x = out if depth == 0 else x + out
        if self.attention is not None:
            x, _ = self._attend(x, self.attention.key(memory.values), memory.values, memory.mask)
            x = self.dropout(x)
        return x

    def _features_step_by_step(self, memory: Memory, x: Tensor) -> Tensor:
        """x (B, T, D) embedded tokens -> (B, T, D); each step is told what the one before attended to."""
        assert self.attention is not None
        keys = self.attention.key(memory.values)
        hiddens = self._start_hidden(memory)
        context = memory.values.new_zeros(x.shape[0], x.shape[2])
        features = []
        for token in x.unbind(1):
            out, hiddens = self._advance(torch.cat([token, context.to(token.dtype)], dim=-1), hiddens)
            context = self._attend(out.unsqueeze(1), keys, memory.values, memory.mask)[0].squeeze(1)
            context = self.dropout(context)
            features.append(context)
        return torch.stack(features, dim=1)

    def logits(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return score_tokens(features, self.output, self.head)

    def start(self, memory: Memory) -> DecodeState:
        """One row for each source; the memory's attention keys are projected here, once."""
        past = {
            f"{name}{depth}": part
            for depth, hidden in enumerate(self._start_hidden(memory))
            for name, part in zip(("hidden", "cell"), hidden, strict=False)
        }
        shared: dict[str, Tensor] = {}
        if self.attention is not None:
            shared = {"keys": self.attention.key(memory.values), "values": memory.values, "mask": memory.mask}
            if self.feeding:
                past["context"] = torch.zeros_like(memory.summary)
        if self.copying is not None:
            shared |= self.copying.kept(memory)
        ragged = [*shared]
        if self.monotone is not None:
            shared, places = self.monotone.start(memory, len(self.output))
            past |= places
            ragged = [*shared, *places]
        return DecodeState(shared, past, memory.mask.sum(1).tolist(), dict.fromkeys(ragged, 1))

    def step(self, state: DecodeState, tokens: Tensor) -> Tensor:
        """tokens (N,), the last of each row -> logits (N, V); the rows of `state` grow older by one."""
        names = ("hidden", "cell") if self.kind == "lstm" else ("hidden",)
        hiddens = [tuple(state.past[f"{name}{depth}"] for name in names) for depth in range(len(self.layers))]
        x = self.embedding(tokens)
        if self.feeding:
            x = torch.cat([x, state.past["context"]], dim=-1)
        x, hiddens = self._advance(x, hiddens)
        for depth, hidden in enumerate(hiddens):
            state.past |= {f"{name}{depth}": part for name, part in zip(names, hidden, strict=True)}
        state.attention = None
        if self.attention is not None:
            shared = state.shared
            folded, weights = self._attend(state.fold(x), shared["keys"], shared["values"], shared["mask"])
            x = state.unfold(folded)
            if self.feeding:
                state.past["context"] = x
            if state.keep_attention:
                state.attention = state.unfold(weights)[:, None, None, :]
        state.ages = [age + 1 for age in state.ages]
        if self.monotone is not None:
            log_probs = self.monotone.step(x, tokens, state, self.logits)
            if state.keep_attention:
                state.attention = self.monotone.weights(state)[:, None, None, :]
            return log_probs
        return self.logits(x) if self.copying is None else self.copying.step(self.logits(x), x, state)

    def _start_hidden(self, memory: Memory) -> list[Hidden]:
        starts = [torch.tanh(bridge(memory.summary)) for bridge in self.bridges]
        return [(start, torch.zeros_like(start)) if self.kind == "lstm" else (start,) for start in starts]

    def _advance(self, x: Tensor, hiddens: list[Hidden]) -> tuple[Tensor, list[Hidden]]:
        """One token a row through all layers: x (N, D_in) -> output (N, D) and the next hidden states."""
        new = []
        for depth, (layer, hidden) in enumerate(zip(self.layers, hiddens, strict=True)):
            hidden = layer.step(x, hidden)  # type: ignore[operator]
            new.append(hidden)
            out = self.dropout(hidden[0])
            x = out if depth == 0 else x + out
        return x, new

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """query (B, T, D) -> the query and what it attended to, combined (B, T, D); weights (B, T, S)."""
        assert self.attention is not None
        assert self.combine is not None
        context, weights = self.attention(query, keys, values, mask)
        return torch.tanh(self.combine(torch.cat([query, context.to(query.dtype)], dim=-1))), weights
