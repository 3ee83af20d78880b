"""Measuring a model: decode the sources, compare with every reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from antiphon.data.pairs import Pair
from antiphon.evaluation.report import Report, group_references, report
from antiphon.run import Model


@dataclass(frozen=True)
class Answers:
    """What a model gave for each distinct source, in the order first seen, and the model's own scores."""

    sources: list[str]
    references: list[list[str]]
    outputs: list[str]
    scores: list[float]


def answer(model: Model, pairs: Sequence[Pair], **settings: Any) -> Answers:
    """Decodes each distinct source of `pairs` once; settings are those of `GenerationConfig`. Raises ValueError."""
    as_written = model.tokenizers.target.as_written
    sources, references = group_references(Pair(pair.source, as_written(pair.target)) for pair in pairs)
    best = [found[0] for found in model.outputs(sources, **{"n_best": 1} | settings)]
    return Answers(sources, references, [output.text for output in best], [output.score for output in best])


def measure(
    answers: Answers, num_worst: int = 10, ter: bool = False, others: Answers | None = None, others_name: str = "other"
) -> Report:
    """The report on `answers`; with `others`, also against those of another model to the same pairs."""
    return report(
        answers.sources,
        answers.outputs,
        answers.references,
        answers.scores,
        num_worst,
        ter,
        None if others is None else others.outputs,
        others_name,
        None if others is None else others.references,
    )


def evaluate(model: Model, pairs: Sequence[Pair], num_worst: int = 10, ter: bool = False, **settings: Any) -> Report:
    """`answer`, then `measure`."""
    return measure(answer(model, pairs, **settings), num_worst, ter)
