"""Measuring a model: decode the sources, compare with every reference."""

from collections.abc import Sequence
from typing import Any

from antiphon.data.pairs import Pair
from antiphon.evaluation.report import Report, group_references, report
from antiphon.run import Model


def evaluate(model: Model, pairs: Sequence[Pair], num_worst: int = 10, **settings: Any) -> Report:
    """Decodes each distinct source of `pairs` once; settings are those of `GenerationConfig`. Raises ValueError."""
    sources, references = group_references(pairs)
    outputs = [found[0] for found in model.outputs(sources, **settings)]
    return report(
        sources,
        [output.text for output in outputs],
        references,
        [output.score for output in outputs],
        num_worst,
    )
