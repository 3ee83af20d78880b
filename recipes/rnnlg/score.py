"""Measures of responses to dialogue acts: `score.py PAIRS OUTPUTS`, where OUTPUTS has a line for each distinct act.

missing_values: how many of an act's values a response leaves out, in percent of all. Values that are not said as they
are written (yes, no, true, false, none, dontcare, ?) are not counted.

grouped_bleu: BLEU where whatever was said to an act that differs in such values alone is a reference too, with the
values of this act put in their places: as the published numbers were measured, with values cut out (Wen and others,
2015).
"""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from sacrebleu.metrics.bleu import BLEU

from antiphon.data.pairs import read_pairs
from antiphon.evaluation.report import group_references

SAID_OTHERWISE = {"", "yes", "no", "true", "false", "none", "dontcare", "dont_care", "?"}
PLACES = 0xE000  # the first of the characters that stand where values were cut out


def parse(act: str) -> tuple[str, list[str]]:
    """inform(name='hotel abri';phone=4153928800) -> inform(name=;phone=), [hotel abri, 4153928800]."""
    kind, _, slots = act.partition("(")
    shape, values = [], []
    for slot in slots.strip().removesuffix(")").split(";"):
        name, _, value = slot.partition("=")
        value = value.strip(" '").lower()
        if value in SAID_OTHERWISE:
            shape.append(f"{name.strip()}={value}")
        else:
            shape.append(f"{name.strip()}=")
            values.append(value)
    return f"{kind.strip()}({';'.join(shape)})", values


def cut_out(response: str, values: list[str]) -> str:
    """A response with the numbers of the act's values in their places, of the longest first."""
    for number, value in sorted(enumerate(values), key=lambda one: -len(one[1])):
        response = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", chr(PLACES + number), response)
    return response


def put_in(response: str, values: list[str]) -> str:
    return response.translate({PLACES + number: value for number, value in enumerate(values)})


acts, references = group_references(read_pairs(sys.argv[1], source_key="mr", target_key="ref"))
responses = [line.lower() for line in Path(sys.argv[2]).read_text(encoding="utf-8").split("\n")[:-1]]
parsed = [parse(act) for act in acts]

said = [value in response for (_, values), response in zip(parsed, responses, strict=True) for value in values]
groups: dict[str, set[str]] = defaultdict(set)
for (shape, values), known in zip(parsed, references, strict=True):
    groups[shape] |= {cut_out(reference.lower(), values) for reference in known}
wanted = [sorted(put_in(reference, values) for reference in groups[shape]) for shape, values in parsed]
most = max(map(len, wanted))
streams: list[Any] = [[some[place] if place < len(some) else None for some in wanted] for place in range(most)]
metric = BLEU(tokenize="none", force=True)
print(
    json.dumps(
        {
            "missing_values": 100 * said.count(False) / max(1, len(said)),
            "grouped_bleu": metric.corpus_score(responses, streams).score,
            "grouped_bleu_signature": str(metric.get_signature()),
        }
    )
)
