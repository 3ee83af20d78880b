"""A model's outputs against what was wanted: the scores, and the worst pairs to look at.

Pairs with the same source are one source with several references, so that an output is right if it is
any of them. Sources, outputs and references stand in the same order. This file knows no models: outputs
are strings.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from antiphon import metrics
from antiphon.data.pairs import Pair


@dataclass(frozen=True)
class WorstPair:
    """An output that is wrong, and how far it is from the closest of its references.

    `distance` is edits over characters, as a share of the longer string: 0 is equal, 1 has nothing in
    common. `score` is the model's own (summed log-probability), where it was given.
    """

    source: str
    output: str
    reference: str
    distance: float
    score: float | None = None


@dataclass(frozen=True)
class Report:
    """Scores over a set of sources, all on a scale of 100. `wer` and `per` are better when lower.

    `wer` is the percent of outputs that are not exactly right, `per` is edits over whitespace-separated
    symbols in percent of the references' symbols; see `antiphon.metrics`.
    """

    num_sources: int
    num_references: int
    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    exact_match: float
    wer: float
    per: float
    worst: tuple[WorstPair, ...]

    def to_json(self) -> str:
        """All fields as one JSON object, indented, in the order above."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2)

    def to_text(self) -> str:
        """For people: a line a score, then the worst pairs. Ends without a newline."""
        lines = [
            f"{self.num_sources} sources, {self.num_references} references",
            "",
            f"exact match {self.exact_match:7.2f}  % of outputs that are exactly right",
            f"BLEU        {self.bleu:7.2f}  {self.bleu_signature}",
            f"chrF        {self.chrf:7.2f}  {self.chrf_signature}",
            f"WER         {self.wer:7.2f}  % of outputs that are not exactly right",
            f"PER         {self.per:7.2f}  edits over whitespace-separated symbols, % of the references'",
        ]
        if self.worst:
            lines += ["", "Worst pairs, by the share of characters to edit:"]
        for pair in self.worst:
            score = "" if pair.score is None else f"  (score {pair.score:.2f})"
            lines += [
                "",
                f"  {pair.distance:4.0%}  source     {pair.source}",
                f"        output     {pair.output}{score}",
                f"        reference  {pair.reference}",
            ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_text()


def group_references(pairs: Iterable[Pair]) -> tuple[list[str], list[list[str]]]:
    """Distinct sources in the order first seen, and for each its distinct targets in that order."""
    targets: dict[str, dict[str, None]] = {}
    for pair in pairs:
        targets.setdefault(pair.source, {})[pair.target] = None
    return list(targets), [list(options) for options in targets.values()]


def report(
    sources: Sequence[str],
    hypotheses: Sequence[str] | Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    scores: Sequence[float] | None = None,
    num_worst: int = 10,
) -> Report:
    """Measures one output a source; of an n-best list, the first. Raises ValueError if counts disagree."""
    outputs = _best(hypotheses)
    if len(sources) != len(outputs):
        raise ValueError(f"{len(sources)} sources but {len(outputs)} outputs: give one output for each source.")
    if scores is not None and len(scores) != len(outputs):
        raise ValueError(f"{len(outputs)} outputs but {len(scores)} scores: give one score for each output, or none.")
    bleu, bleu_signature = metrics.bleu(outputs, references)
    chrf, chrf_signature = metrics.chrf(outputs, references)
    exact_match = metrics.exact_match(outputs, references)
    return Report(
        num_sources=len(sources),
        num_references=sum(len(options) for options in references),
        bleu=bleu,
        bleu_signature=bleu_signature,
        chrf=chrf,
        chrf_signature=chrf_signature,
        exact_match=exact_match,
        wer=100.0 - exact_match,
        per=metrics.symbol_error_rate(outputs, references),
        worst=_worst(sources, outputs, references, scores, num_worst),
    )


def _best(hypotheses: Sequence[str] | Sequence[Sequence[str]]) -> list[str]:
    best = []
    for number, found in enumerate(hypotheses, 1):
        if not isinstance(found, str) and not found:
            raise ValueError(f"source {number} has an empty list of outputs: give one or more.")
        best.append(found if isinstance(found, str) else found[0])
    return best


def _worst(
    sources: Sequence[str],
    outputs: Sequence[str],
    references: Sequence[Sequence[str]],
    scores: Sequence[float] | None,
    limit: int,
) -> tuple[WorstPair, ...]:
    """At most `limit` wrong outputs, the farthest from their closest reference first; ties by order."""
    from rapidfuzz.distance import Levenshtein

    wrong = []
    for row, (source, output, options) in enumerate(zip(sources, outputs, references, strict=True)):
        distances = [Levenshtein.normalized_distance(output, option) for option in options]
        nearest = min(distances)
        if nearest > 0:
            reference = options[distances.index(nearest)]
            score = None if scores is None else scores[row]
            wrong.append(WorstPair(source, output, reference, nearest, score))
    return tuple(sorted(wrong, key=lambda pair: -pair.distance)[:limit])
