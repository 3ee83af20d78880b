"""A model's outputs against what was wanted: the scores, where they are low, and the worst pairs to look at.

Pairs with the same source are one source with several references, so that an output is right if it is
any of them. Sources, outputs and references stand in the same order. This file knows no models: outputs
are strings.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from antiphon import metrics
from antiphon.data.pairs import Pair
from antiphon.evaluation.errors import Error, frequent_errors
from antiphon.evaluation.lengths import LengthGroup, by_length
from antiphon.evaluation.significance import Against, Comparison, compare


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
    """Scores over a set of sources, all on a scale of 100. `wer`, `per` and `ter` are better when lower.

    `wer` is the percent of outputs that are not exactly right, `per` is edits over whitespace-separated
    symbols in percent of the references' symbols; see `antiphon.metrics`. `errors` are the most frequent of the
    `num_edits` edits that `per` counts. `ter` and `against` (another system): when asked for.
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
    char_bleu: float
    char_bleu_signature: str
    ter: float | None
    ter_signature: str | None
    by_length: tuple[LengthGroup, ...]
    num_edits: int
    errors: tuple[Error, ...]
    against: Against | None
    worst: tuple[WorstPair, ...]

    def to_json(self) -> str:
        """All fields as one JSON object, indented, in the order above."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2)

    def to_text(self) -> str:
        """For people: a line a score, then tables and the worst pairs. Ends without a newline."""
        parts = (_score_lines(self), _against_lines(self), _length_lines(self), _error_lines(self), _worst_lines(self))
        return "\n\n".join("\n".join(lines) for lines in parts if lines)

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
    ter: bool = False,
    others: Sequence[str] | None = None,
    others_name: str = "other",
    their_references: Sequence[Sequence[str]] | None = None,
) -> Report:
    """Measures one output a source; of an n-best list, the first. Raises ValueError if counts disagree.

    ter: measure it, which is slow. others: another system's outputs for the same sources, to be compared with;
    their_references: as that system writes them, where it does so otherwise.
    """
    outputs = _best(hypotheses)
    if len(sources) != len(outputs):
        raise ValueError(f"{len(sources)} sources but {len(outputs)} outputs: give one output for each source.")
    if scores is not None and len(scores) != len(outputs):
        raise ValueError(f"{len(outputs)} outputs but {len(scores)} scores: give one score for each output, or none.")
    bleu, bleu_signature = metrics.bleu(outputs, references)
    chrf, chrf_signature = metrics.chrf(outputs, references)
    char_bleu, char_bleu_signature = metrics.char_bleu(outputs, references)
    ter_and_signature = metrics.ter(outputs, references) if ter else (None, None)
    exact_match = metrics.exact_match(outputs, references)
    errors, num_edits = frequent_errors(outputs, references)
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
        char_bleu=char_bleu,
        char_bleu_signature=char_bleu_signature,
        ter=ter_and_signature[0],
        ter_signature=ter_and_signature[1],
        by_length=by_length(sources, outputs, references),
        num_edits=num_edits,
        errors=errors,
        against=None if others is None else compare(outputs, others, references, others_name, ter, their_references),
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


def _score_lines(report: Report) -> list[str]:
    lines = [
        f"{report.num_sources} sources, {report.num_references} references",
        "",
        f"exact match {report.exact_match:7.2f}  % of outputs that are exactly right",
        f"BLEU        {report.bleu:7.2f}  {report.bleu_signature}",
        f"char. BLEU  {report.char_bleu:7.2f}  {report.char_bleu_signature}",
        f"chrF        {report.chrf:7.2f}  {report.chrf_signature}",
    ]
    if report.ter is not None:
        lines.append(f"TER         {report.ter:7.2f}  {report.ter_signature}")
    return [
        *lines,
        f"WER         {report.wer:7.2f}  % of outputs that are not exactly right",
        f"PER         {report.per:7.2f}  edits over whitespace-separated symbols, % of the references'",
    ]


def _against_lines(report: Report) -> list[str]:
    if report.against is None:
        return []
    against = report.against
    rows = {"exact match": against.exact_match, "BLEU": against.bleu, "chrF": against.chrf, "TER": against.ter}
    return [
        f"Against {against.name}; p: how likely such a difference, either way, is by chance:",
        "",
        f"{'':11} {'this':>7} {'other':>7}  {'p':>6}",
        *(_compared(name, row) for name, row in rows.items() if row is not None),
    ]


def _compared(name: str, found: Comparison) -> str:
    p_value = "<0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}"
    return f"{name:11} {found.score:7.2f} {found.other:7.2f}  {p_value:>6}  {found.test}"


def _length_lines(report: Report) -> list[str]:
    lines = [f"By length of source, in {report.by_length[0].unit}:", ""]
    lines.append(f"{'length':>11} {'sources':>8} {'exact match':>12} {'BLEU':>7} {'PER':>7}")
    for group in report.by_length:
        scores = f"{group.exact_match:12.2f} {group.bleu:7.2f} {group.per:7.2f}"
        lines.append(f"{group.span:>11} {group.num_sources:8} {scores}")
    return lines


def _error_lines(report: Report) -> list[str]:
    if not report.errors:
        return []
    rows = [f"{error.count:11} {error.share:5.0%}  {error}" for error in report.errors]
    return [f"Most frequent of {report.num_edits} edits, wanted -> said:", "", *rows]


def _worst_lines(report: Report) -> list[str]:
    lines = ["Worst pairs, by the share of characters to edit:"] if report.worst else []
    for pair in report.worst:
        score = "" if pair.score is None else f"  (score {pair.score:.2f})"
        lines += [
            "",
            f"  {pair.distance:4.0%}  source     {pair.source}",
            f"        output     {pair.output}{score}",
            f"        reference  {pair.reference}",
        ]
    return lines
