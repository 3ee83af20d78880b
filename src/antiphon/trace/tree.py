"""Watching a search: its hypotheses as a tree, and what the model said after each of them.

The search is run by the ordinary running batch, which sees a model and a search like any other.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from antiphon.decoding.active import ActiveBatch
from antiphon.decoding.rules import forbid
from antiphon.decoding.search import BeamSearch, Candidates, Hypothesis, Sampling, Search
from antiphon.ids import BOS
from antiphon.model.layers import Memory
from antiphon.model.seq2seq import Seq2Seq
from antiphon.tokenizer import Tokenizer
from antiphon.trace.records import Fate, Node, rounded

Tokens = tuple[int, ...]


class Candidate(NamedTuple):
    """A token that could come next. allowed: by the rules of the search."""

    token: int
    log_prob: float
    allowed: bool


class Distribution(NamedTuple):
    """What a model says after a hypothesis: its most probable tokens, and the entropy over all (nats)."""

    best: list[Candidate]
    entropy: float


class Watched:
    """A model and the one search it is decoded by. Of every hypothesis that is stepped, the distribution is kept."""

    def __init__(self, network: Seq2Seq, memory: Memory, search: BeamSearch | Sampling, alternatives: int) -> None:
        self.network, self.memory = network, memory
        self.search: BeamSearch | Sampling = search
        self.shown = alternatives + 1  # the chosen one may be among them
        self.distributions: dict[Tokens, Distribution] = {}

    def start(self, sources: Sequence[Sequence[int]]) -> Any:
        return self.network.decoder.start(self.memory)

    def step(self, state: Any, tokens: Sequence[int]) -> Tensor:
        """tokens (N,) -> logits (N, V)."""
        logits = self.network.step(state, tokens)
        if not logits.isfinite().all():
            raise ValueError("the model's logits are not finite numbers: its weights are broken; train it again.")
        log_probs = logits.log_softmax(dim=-1)
        entropies = -(log_probs.exp() * log_probs).sum(-1)
        values, best = log_probs.topk(min(self.shown, log_probs.shape[1]), dim=-1)
        forbid(log_probs, [self.search])
        allowed = log_probs.gather(1, best) > -torch.inf
        lists = (part.tolist() for part in (best, values, allowed, entropies))
        for hypothesis, *row, entropy in zip(self.search.live, *lists, strict=True):
            self.distributions[hypothesis.tokens] = Distribution([*map(Candidate, *row)], entropy)
        return logits


class _Beam:
    """A beam search that remembers the candidates of the last step."""

    def __init__(self, search: BeamSearch) -> None:
        self.search = search
        self.settings, self.prefix = search.settings, search.prefix
        self.live, self.parents = search.live, search.parents
        self.candidates: list[Hypothesis] = []

    def advance(self, candidates: Candidates) -> None:
        parts = zip(candidates.rows, candidates.tokens, candidates.log_probs, strict=True)
        self.candidates = [self.live[row].extended(token, log_prob, None) for row, token, log_prob in parts]
        self.search.advance(candidates)
        self.live, self.parents = self.search.live, self.search.parents

    def results(self) -> list[Hypothesis]:
        return self.search.results()


class Tree:
    """The nodes of a search, in the order in which they came up; a node is known by its tokens."""

    def __init__(self, tokenizer: Tokenizer, length_penalty: float) -> None:
        self.tokenizer, self.length_penalty = tokenizer, length_penalty
        self.nodes: dict[Tokens, Node] = {}
        self.plant(Hypothesis(), "kept")

    def plant(self, hypothesis: Hypothesis, fate: Fate) -> Node:
        """The node of a hypothesis, a new one unless it has one."""
        tokens = hypothesis.tokens
        if tokens not in self.nodes:
            token, log_prob = (tokens[-1], hypothesis.log_probs[-1]) if tokens else (BOS, 0.0)
            self.nodes[tokens] = Node(
                id=len(self.nodes),
                parent=self.nodes[tokens[:-1]].id if tokens else None,
                step=len(tokens),
                token=token,
                piece=self.tokenizer.piece(token),
                log_prob=rounded(log_prob),
                score=rounded(hypothesis.score),
                normalized=rounded(hypothesis.normalized(self.length_penalty)),
                fate=fate,
                pruned_at=len(tokens) if fate == "pruned" else None,
            )
        return self.nodes[tokens]

    def grow(
        self, before: Iterable[Hypothesis], candidates: Iterable[Hypothesis], search: BeamSearch | Sampling
    ) -> None:
        """One step of the search: its rows before it, and what it could choose from."""
        for hypothesis in search.live:
            self.plant(hypothesis, "kept")
        for hypothesis in search.finished:
            self.plant(hypothesis, "finished")
        for hypothesis in candidates:
            if hypothesis.score > -math.inf:
                self.plant(hypothesis, "pruned")
        parents = {hypothesis.tokens[:-1] for hypothesis in (*search.live, *search.finished)}
        for tokens in {hypothesis.tokens for hypothesis in before} - parents:
            self.nodes[tokens] = replace(self.nodes[tokens], fate="pruned", pruned_at=len(tokens) + 1)


def run(watched: Watched, source: Sequence[int], tree: Tree) -> Tree:
    """Decodes until the search ends; the tree, grown. A sample takes all that it draws: it needs no watching."""
    search = watched.search
    beam = _Beam(search) if isinstance(search, BeamSearch) else None
    batch = ActiveBatch(watched, keep_attention=True)
    taken: Search = beam or search
    batch.add([source], [taken])
    while batch.searches:
        before = search.live
        batch.step()
        tree.grow(before, beam.candidates if beam else [], search)
    return tree
