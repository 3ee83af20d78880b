"""How many of an act's values a response leaves out, in percent of all. `score.py PAIRS OUTPUTS`.

Values that are not said as they are written (yes, no, true, false, none, dontcare, ?) are not counted. OUTPUTS has a
line for each distinct act.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from antiphon.data.pairs import read_pairs
from antiphon.evaluation.report import group_references

SAID_OTHERWISE = {"", "yes", "no", "true", "false", "none", "dontcare", "dont_care", "?"}


def values(act: str) -> Iterator[str]:
    """inform(name='hotel abri';phone=4153928800) -> hotel abri, 4153928800."""
    for slot in act.partition("(")[2].removesuffix(")").split(";"):
        value = slot.partition("=")[2].strip("'").lower()
        if value not in SAID_OTHERWISE:
            yield value


pairs, outputs = sys.argv[1:]
acts, _ = group_references(read_pairs(pairs, source_key="mr", target_key="ref"))
responses = Path(outputs).read_text(encoding="utf-8").split("\n")[:-1]
said = [value in response.lower() for act, response in zip(acts, responses, strict=True) for value in values(act)]
print(json.dumps({"missing_values": 100 * said.count(False) / max(1, len(said))}))
