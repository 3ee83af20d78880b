"""One decode of one text, with all that a person needs to see it: vectors, search tree, distributions, attention.

A trace is taken while the ordinary running batch decodes, so it shows what a decode does. It changes nothing in the
model: other threads may decode with it meanwhile.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from antiphon.config import ModelConfig, generation_settings
from antiphon.decoding.search import BeamSearch, Hypothesis, Sampling, make_search
from antiphon.ids import BOS, EOS, UNK
from antiphon.model.layers import Memory
from antiphon.run import Model
from antiphon.trace.records import (
    Alternative,
    Architecture,
    Finished,
    Forced,
    ForcedToken,
    Node,
    Source,
    Step,
    Trace,
    plain,
    probability,
    rounded,
)
from antiphon.trace.tree import Candidate, Distribution, Tokens, Tree, Watched, run

__all__ = [
    "Alternative",
    "Architecture",
    "Finished",
    "Forced",
    "ForcedToken",
    "Node",
    "Source",
    "Step",
    "Trace",
    "trace",
]

ALMOST_ZERO = 1e-12  # variance of vectors that are equal but for rounding


@torch.inference_mode()
def trace(
    model: Model,
    text: str,
    *,
    alternatives: int = 8,
    target: str | None = None,
    prefix: str = "",
    longest: int | None = None,
    **settings: Any,
) -> Trace:
    """Decodes `text` as `model.outputs` does, with the same settings, and tells how.

    alternatives: shown beside each chosen token. target: a text to score by teacher forcing. longest: tokens that an
    output may have, whatever its settings and its source would let it have. Raises ValueError for a blank or too long
    text, and for a setting that cannot be.
    """
    if alternatives < 1:
        raise ValueError(f"alternatives is {alternatives}; ask for 1 or more.")
    if not text.strip():
        raise ValueError("text: it is blank, and there is nothing to decode; give some text.")
    wanted = generation_settings(model.config.generation, **settings)
    source = model.source_ids(text)
    goal = None if target is None else model.tokenizers.target.encode(target)
    forced = model.tokenizers.target.encode(prefix) if prefix else []
    for name, ids in (("text", source[:-1]), ("prefix", forced), ("target", goal or [])):
        _check_length(name, len(ids), model.config.training.max_length)
    if UNK in forced:
        raise ValueError(f"prefix: the model does not know all of {prefix!r}, and cannot say it; change it.")
    memory = model.network.encode([source])
    search = make_search(wanted, model.max_length(len(source), wanted, longest), forced)
    watched = Watched(model.network, memory, search, alternatives)
    tree = run(watched, source, Tree(model.tokenizers.target, wanted.length_penalty))
    path = _path(tree, search.results()[0], watched.distributions, alternatives)
    return Trace(
        text=text,
        prefix=prefix,
        architecture=_architecture(model.config.model),
        settings=wanted.model_dump() | {"max_length": search.max_length},
        source=_source(model, source, memory),
        nodes=list(tree.nodes.values()),
        path=path,
        outputs=_outputs(model, tree, search),
        target=None if target is None or goal is None else _teacher_forced(model, memory, target, goal),
    )


def _check_length(name: str, found: int, limit: int) -> None:
    if found > limit:
        raise ValueError(f"{name}: at most {limit} tokens, found {found}; shorten it.")


def _path(tree: Tree, best: Hypothesis, distributions: Mapping[Tokens, Distribution], alternatives: int) -> list[Step]:
    """The steps of an output. An alternative that could have been chosen is a node of the tree, or becomes one."""
    steps = []
    hypothesis = Hypothesis()
    for index, (token, log_prob) in enumerate(zip(best.tokens, best.log_probs, strict=True)):
        seen = best.attention[index] if best.attention else None
        distribution = distributions[hypothesis.tokens]
        others = [candidate for candidate in distribution.best if candidate.token != token][:alternatives]
        steps.append(
            Step(
                node=tree.nodes[best.tokens[: index + 1]].id,
                input=tree.nodes[hypothesis.tokens].piece,
                token=token,
                piece=tree.tokenizer.piece(token),
                probability=probability(log_prob),
                entropy=rounded(max(0.0, distribution.entropy)),
                alternatives=[_alternative(tree, hypothesis, candidate) for candidate in others],
                attention=plain(seen) if isinstance(seen, Tensor) else [],
            )
        )
        hypothesis = hypothesis.extended(token, log_prob, None)
    return steps


def _alternative(tree: Tree, hypothesis: Hypothesis, candidate: Candidate) -> Alternative:
    node = None
    if candidate.allowed:
        node = tree.plant(hypothesis.extended(candidate.token, candidate.log_prob, None), "pruned").id
    piece = tree.tokenizer.piece(candidate.token)
    return Alternative(candidate.token, piece, probability(candidate.log_prob), node)


def _outputs(model: Model, tree: Tree, search: BeamSearch | Sampling) -> list[Finished]:
    """All hypotheses that finished: those that a decode returns, then the others, each best first."""
    best = search.results()
    others = [h for h in search.finished if not any(h is returned for returned in best)]
    others.sort(key=lambda h: h.normalized(search.settings.length_penalty), reverse=True)
    found = []
    for place, hypothesis in enumerate([*best, *others]):
        output, node = model.output(hypothesis), tree.nodes[hypothesis.tokens]
        found.append(
            Finished(
                node=node.id,
                text=output.text,
                score=node.score,
                normalized=node.normalized,
                pieces=output.tokens,
                token_scores=[rounded(score) for score in output.token_scores],
                ended=output.finished,
                returned=place < len(best),
            )
        )
    return found


def _architecture(config: ModelConfig) -> Architecture:
    return Architecture(
        encoder=config.encoder,
        bidirectional=config.encoder != "transformer" and config.bidirectional,
        decoder=config.decoder,
        attention=config.attention if _is_recurrent(config) else "multi-head",
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        d_model=config.d_model,
    )


def _is_recurrent(config: ModelConfig) -> bool:
    """Whether the decoder begins with the memory's summary."""
    return config.decoder not in ("transformer", "ssru")


def _source(model: Model, tokens: list[int], memory: Memory) -> Source:
    vectors = memory.values[0].double().cpu()
    projection, variance = project(vectors)
    summary = memory.summary[0].double().cpu() if _is_recurrent(model.config.model) else None
    return Source(
        tokens=tokens,
        pieces=model.tokenizers.source.pieces(tokens),
        vectors=plain(vectors),
        norms=plain(vectors.norm(dim=1)),
        projection=plain(projection),
        variance=plain(variance),
        summary=None if summary is None else plain(summary),
        summary_norm=None if summary is None else plain(summary.norm()),
    )


def project(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """vectors (S, D) -> (S, 2) on their two principal axes, and the share of their variance along each (2,).

    An axis points to where its largest element is positive.
    """
    centred = vectors - vectors.mean(0)
    # Two rows of zeros turn no axis, and make sure that there are two.
    _, sizes, axes = torch.linalg.svd(torch.cat([centred, centred.new_zeros(2, centred.shape[1])]), full_matrices=False)
    axes = axes[:2] * axes[:2].gather(1, axes[:2].abs().argmax(1, keepdim=True)).sign()
    variances = sizes.square()
    return centred @ axes.T, variances[:2] / variances.sum().clamp(min=ALMOST_ZERO)


def _teacher_forced(model: Model, memory: Memory, text: str, ids: list[int]) -> Forced:
    """The target `text`, whose ids are `ids`, after the source in memory."""
    tokenizer = model.tokenizers.target
    fed, wanted = [BOS, *ids], [*ids, EOS]
    logits = model.network.predict(memory, torch.tensor([fed], device=model.network.device))
    log_probs = logits[0].float().log_softmax(dim=-1)  # (T, V)
    right = log_probs.gather(1, torch.tensor(wanted, device=log_probs.device).unsqueeze(1)).squeeze(1).tolist()
    best = log_probs.max(dim=-1)
    parts = zip(fed, wanted, right, best.indices.tolist(), best.values.tolist(), strict=True)
    tokens = [
        ForcedToken(
            input=tokenizer.piece(before),
            token=token,
            piece=tokenizer.piece(token),
            probability=probability(log_prob),
            loss=rounded(-log_prob),
            best_piece=tokenizer.piece(favourite),
            best_probability=probability(highest),
        )
        for before, token, log_prob, favourite, highest in parts
    ]
    return Forced(text, tokens, rounded(-sum(right)), rounded(math.exp(-sum(right) / len(right))))
