"""BLEU as it was published for multi30k: lower case, Moses' punctuation and tokens. `score.py PAIRS OUTPUTS`.

PAIRS are two text files with a comma between; OUTPUTS has a line for each distinct source. Needs sacremoses (pip).
"""

import json
import sys
from pathlib import Path

from sacrebleu.metrics.bleu import BLEU
from sacremoses import MosesPunctNormalizer, MosesTokenizer

from antiphon.data.pairs import read_pairs
from antiphon.evaluation.report import group_references

pairs, outputs = sys.argv[1:]
language = pairs.removesuffix(".gz")[-2:]
normalize, tokenize = MosesPunctNormalizer(language).normalize, MosesTokenizer(language).tokenize


def tokens(text: str) -> str:
    return str(tokenize(normalize(text.lower()), return_str=True, escape=False))


_, references = group_references(read_pairs(pairs))
said = [tokens(line) for line in Path(outputs).read_text(encoding="utf-8").split("\n")[:-1]]
wanted = [tokens(options[0]) for options in references]
metric = BLEU(tokenize="none", smooth_method="none", force=True)
score = metric.corpus_score(said, [wanted]).score
print(json.dumps({"tokenised_bleu": score, "tokenised_bleu_signature": str(metric.get_signature())}))
