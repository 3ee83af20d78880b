"""Measures of responses to dialogue acts: `score.py PAIRS OUTPUTS`, where OUTPUTS has a line for each distinct act.

missing_values: how many of an act's values a response leaves out, in percent of all. Values that are not said as they
are written (yes, no, true, false, none, dontcare, ?) are not counted.

grouped_bleu: BLEU where whatever was said to an act that differs in its values and the order of its slots alone is a
reference too, with the values of this act put in their places, and without the mark at a response's end: as the
published numbers were measured (Wen and others, 2015; `_loadData` of their toolkit's DataReader.py).
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

SAID_OTHERWISE = {"", "yes", "no", "none", "dontcare", "?"}
SAME = {"true": "yes", "false": "no", "dont_care": "dontcare"}
PLACES = 0xE000  # the first of the characters that stand where values were cut out


def parse(act: str) -> tuple[str, list[str]]:
    """inform(phone=4153928800;name='hotel abri') -> inform(name=_;phone=_), [hotel abri, 4153928800]: slots sorted by
    their names, those of one name as they stand."""
    kind, _, slots = act.partition("(")
    shape, values = [], []
    for slot in slots.strip().removesuffix(")").split(";"):
        name, _, value = slot.partition("=")
        value = value.strip(" '").lower()
        value = SAME.get(value, value)
        shape.append((name.strip(), value if value in SAID_OTHERWISE else "_"))
        if value not in SAID_OTHERWISE:
            values.append((name.strip(), value))
    told = ";".join(f"{name}={value}" for name, value in sorted(shape))
    return f"{kind.strip()}({told})", [value for _, value in sorted(values, key=lambda slot: slot[0])]


def cut_out(response: str, values: list[str]) -> str:
    """A response with the numbers of the act's values in their places, of the longest first."""
    for number, value in sorted(enumerate(values), key=lambda one: -len(one[1])):
        response = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", chr(PLACES + number), response)
    return response


def without_end(response: str) -> str:
    return re.sub(r"\s+[.?!]\s*$", "", response)


def put_in(response: str, values: list[str]) -> str:
    return response.translate({PLACES + number: value for number, value in enumerate(values)})


acts, references = group_references(read_pairs(sys.argv[1], source_key="mr", target_key="ref"))
responses = [line.lower() for line in Path(sys.argv[2]).read_text(encoding="utf-8").split("\n")[:-1]]
parsed = [parse(act) for act in acts]

said = [value in response for (_, values), response in zip(parsed, responses, strict=True) for value in values]
groups: dict[str, set[str]] = defaultdict(set)
for (shape, values), known in zip(parsed, references, strict=True):
    groups[shape] |= {cut_out(without_end(reference.lower()), values) for reference in known}
wanted = [sorted(put_in(reference, values) for reference in groups[shape]) for shape, values in parsed]
most = max(map(len, wanted))
streams: list[Any] = [[some[place] if place < len(some) else None for some in wanted] for place in range(most)]
metric = BLEU(tokenize="none", force=True)
print(
    json.dumps(
        {
            "missing_values": 100 * said.count(False) / max(1, len(said)),
            "grouped_bleu": metric.corpus_score([without_end(response) for response in responses], streams).score,
            "grouped_bleu_signature": str(metric.get_signature()),
        }
    )
)
