"""How good outputs are: pure functions of strings, every score on a scale of 100.

Each function takes `hypotheses`, one string a source, and `references`, for each of them one or more strings
that would be right; their number may differ from source to source. What the field calls WER is two things:

    sequence_error_rate   percent of outputs that are not exactly right: SIGMORPHON's WER, our metric "wer"
    symbol_error_rate     edits over whitespace-separated symbols, percent of the references' symbols: over
                          phones it is PER, our metric "per"; over words, the WER of speech recognition

BLEU, character BLEU, chrF and TER are sacreBLEU's, and come with the signature they are to be reported with.
This file knows no models and no files. The libraries behind it are imported when a score is asked for.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

References = Sequence[Sequence[str]]

HIGHER_IS_BETTER: dict[str, bool] = {
    "loss": False,
    "bleu": True,
    "chrf": True,
    "exact_match": True,
    "wer": False,
    "per": False,
    "char_bleu": True,
    "ter": False,
}


def bleu(hypotheses: Sequence[str], references: References) -> tuple[float, str]:
    """sacreBLEU's corpus BLEU (13a tokens, mixed case), and its signature."""
    return _scored("bleu", hypotheses, references)


def char_bleu(hypotheses: Sequence[str], references: References) -> tuple[float, str]:
    """sacreBLEU's corpus BLEU over characters, spaces left out, and its signature."""
    return _scored("char_bleu", hypotheses, references)


def chrf(hypotheses: Sequence[str], references: References) -> tuple[float, str]:
    """sacreBLEU's corpus chrF2 (character 6-grams, no words), and its signature."""
    return _scored("chrf", hypotheses, references)


def ter(hypotheses: Sequence[str], references: References) -> tuple[float, str]:
    """sacreBLEU's translation edit rate, of which a moved phrase is one edit (Snover et al. 2006), and its signature.

    Tercom's tokens, lower case. Slow where outputs are long.
    """
    return _scored("ter", hypotheses, references)


def scorer(name: str) -> "Metric":
    """sacreBLEU's own object for "bleu", "char_bleu", "chrf" or "ter", with the settings of the functions above."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    # `force` changes no score: it only keeps sacreBLEU from logging that outputs look tokenized.
    scorers: dict[str, Callable[[], Metric]] = {
        "bleu": lambda: BLEU(force=True),
        "char_bleu": lambda: BLEU(tokenize="char", force=True),
        "chrf": CHRF,
        "ter": TER,
    }
    return scorers[name]()


def exact_match(hypotheses: Sequence[str], references: References) -> float:
    """Percent of outputs that equal one of their references, character for character."""
    check(hypotheses, references)
    right = sum(output in options for output, options in zip(hypotheses, references, strict=True))
    return 100.0 * right / len(hypotheses)


def sequence_error_rate(hypotheses: Sequence[str], references: References) -> float:
    """Percent of outputs that equal none of their references: 100 - `exact_match`."""
    return 100.0 - exact_match(hypotheses, references)


def symbol_error_rate(hypotheses: Sequence[str], references: References) -> float:
    """Edits (insert, delete, replace) from outputs to references, in percent of the references' symbols.

    Symbols are what whitespace separates. Each output is held against the reference that needs the fewest
    edits, the first of several. Edits and symbols are summed over the corpus before they are divided; many
    symbols too many can bring the rate over 100.
    """
    check(hypotheses, references)
    edits = symbols = 0
    for output, options in zip(hypotheses, references, strict=True):
        wanted, fewest = closest(output, options)
        edits += fewest
        symbols += len(wanted)
    return 100.0 * edits / max(symbols, 1)


def closest(output: str, options: Sequence[str]) -> tuple[list[str], int]:
    """The symbols of the reference that needs the fewest edits, the first of several; and how many edits."""
    from rapidfuzz.distance import Levenshtein

    said = output.split()
    wanted = [option.split() for option in options]
    distances = [Levenshtein.distance(said, option) for option in wanted]
    fewest = min(distances)
    return wanted[distances.index(fewest)], fewest


# The same sum, under the name of its field.
word_error_rate = symbol_error_rate
phone_error_rate = symbol_error_rate


def compute(name: str, hypotheses: Sequence[str], references: References) -> float:
    """The metric that the settings call `name`. Raises ValueError for one that needs more than strings."""
    if name not in _BY_NAME:
        raise ValueError(f"metric {name!r} cannot be computed from outputs; there are {', '.join(_BY_NAME)}.")
    return _BY_NAME[name](hypotheses, references)


def check(hypotheses: Sequence[str], references: References) -> None:
    """Raises ValueError unless there are hypotheses and each has one or more references."""
    if len(hypotheses) != len(references):
        raise ValueError(
            f"{len(hypotheses)} outputs but references for {len(references)}: "
            "give one list of references for each output."
        )
    if not hypotheses:
        raise ValueError("there are no outputs to measure; give one or more.")
    for number, options in enumerate(references, 1):
        # A string is a sequence of strings to a type checker, and would be taken for one reference a letter.
        if isinstance(options, str):
            raise ValueError(f"the references of output {number} are a string: give a list of strings.")
        if not options:
            raise ValueError(f"output {number} has no reference: give one or more.")


def streams(references: References) -> list[list[str]]:
    """References by rank, as sacreBLEU takes them: first ones, second ones ..., None where one is missing."""
    most = max(len(options) for options in references)
    streams = [[options[rank] if rank < len(options) else None for options in references] for rank in range(most)]
    return cast(list[list[str]], streams)  # sacreBLEU allows None, its annotations do not


def _scored(name: str, hypotheses: Sequence[str], references: References) -> tuple[float, str]:
    check(hypotheses, references)
    metric = scorer(name)
    score = metric.corpus_score(list(hypotheses), streams(references)).score
    return float(score), str(metric.get_signature())


_BY_NAME: dict[str, Callable[[Sequence[str], References], float]] = {
    "bleu": lambda hypotheses, references: bleu(hypotheses, references)[0],
    "chrf": lambda hypotheses, references: chrf(hypotheses, references)[0],
    "exact_match": exact_match,
    "wer": sequence_error_rate,
    "per": symbol_error_rate,
    "char_bleu": lambda hypotheses, references: char_bleu(hypotheses, references)[0],
    "ter": lambda hypotheses, references: ter(hypotheses, references)[0],
}
