"""The text side of a trained model: what turns texts into ids for it, and its hypotheses into outputs.

It reads the settings, facts and tokenizers of a run folder, and no weights; it imports no torch.
"""

import json
import math
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from antiphon import tokenizer
from antiphon.config import Config, GenerationConfig, changed
from antiphon.decoding.search import Hypothesis
from antiphon.ids import EOS
from antiphon.tokenizer import UNKNOWN_TEXT, Tokenizer, TokenizerPair
from antiphon.words import Word, words_of

CONFIG, FACTS, METRICS, CHECKPOINTS = "config.json", "facts.json", "metrics.jsonl", "checkpoints"  # of a run folder
LONG_TEXT = 4096  # characters

RunPath = str | Path | Sequence[str | Path]  # a run folder; or several, for an ensemble: a list, or joined by "+"


@dataclass(frozen=True)
class Facts:
    """What a model should know about the data it was trained on. Lengths and ratios are in tokens."""

    train_pairs: int
    dev_pairs: int
    empty_pairs: int  # left out, of both sets
    too_long_pairs: int  # left out, of both sets
    longest_source: int
    longest_target: int
    length_ratio: float  # target to source length (with EOS), exceeded by one training pair in a thousand
    padding_share: float
    fingerprint: str  # of the training pairs
    dev_fingerprint: str = ""
    tags: Sequence[str] = ()  # that sources began with, to tell what is wanted
    begun_from: str = ""  # the run whose tokenizers and weights it began with
    begun_parameters: int = 0  # so many of which were taken
    unknown_tokens: int = 0  # of the training pairs, to tokenizers that were learned from others


@dataclass(frozen=True)
class Output:
    """One output for one source.

    score: its log-probability (natural logarithm). token_scores: those of its tokens, and of its end. finished: it
    ended by itself, and was not cut at max_length. attention: (tokens, layers, heads, source tokens) weights, where
    asked for.
    """

    text: str
    score: float
    tokens: list[str]
    token_scores: list[float]
    finished: bool
    attention: Any = None


BLANK = Output("", 0.0, [], [], finished=True)


class TextSide:
    """The tokenizers, settings and facts of a model."""

    def __init__(self, tokenizers: TokenizerPair, config: Config, facts: Facts) -> None:
        self.tokenizers, self.config, self.facts = tokenizers, config, facts

    @classmethod
    def load(cls, run: RunPath) -> Self:
        """That of the model in a run folder; of an ensemble, that of its first, whose vocabularies all others share.

        Raises ValueError, in a sentence, when there is none, it is broken, or an ensemble's vocabularies differ.
        """
        folder, *others = members_of(run)
        config = read_config(folder)
        side = cls(tokenizer.load(folder), config, read_facts(folder))
        for other in others:
            read_config(other)
            if tokenizer.load(other) != side.tokenizers:
                raise ValueError(
                    f"{other}: cuts text into other tokens than {folder}, and the runs of an ensemble share their "
                    "vocabularies; train them on the same pairs with the same [tokenizer] settings."
                )
        return side

    def source_ids(self, text: str) -> list[int]:
        """Token ids with EOS, as the encoder wants them."""
        return [*self._ids(self.tokenizers.source, text), EOS]

    def target_ids(self, text: str) -> list[int]:
        """Token ids without EOS."""
        return self._ids(self.tokenizers.target, text)

    @staticmethod
    def _ids(side: Tokenizer, text: str) -> list[int]:
        """A long text is encoded as a batch of one, for which the library lets other threads go on."""
        return side.encode(text) if len(text) < LONG_TEXT else next(side.encode_batch([text]))

    def prefix_ids(self, text: str) -> list[int]:
        """Token ids that an output shall begin with."""
        return self.target_ids(text) if text else []

    def max_length(self, source_length: int, settings: GenerationConfig, longest: int | None = None) -> int:
        """The most tokens an output may have; by default a little over what training pairs of its length have, or over
        `min_length`. longest: never more than this."""
        usual = math.ceil(1.25 * self.facts.length_ratio * source_length)
        wanted = settings.max_length or max(usual, settings.min_length) + 8
        return wanted if longest is None else min(wanted, longest)

    def settled_text(self, tokens: Sequence[int]) -> str:
        """The text that an output beginning with these tokens begins with, whatever follows: without bytes that are no
        character yet, and without a character that a combining mark or another jamo could still change."""
        text = self.tokenizers.target.decode(tokens).rstrip(UNKNOWN_TEXT)
        if self.tokenizers.target.normalization != "NFD":
            return text
        end = len(text)
        while end and unicodedata.combining(text[end - 1]):
            end -= 1
        return text[: max(0, end - 1)]

    def output(self, hypothesis: Hypothesis) -> Output:
        """A hypothesis as text."""
        tokens = hypothesis.tokens[:-1] if hypothesis.ended else hypothesis.tokens
        return Output(
            text=self.tokenizers.target.decode(tokens),
            score=hypothesis.score,
            tokens=self.tokenizers.target.pieces(tokens),
            token_scores=list(hypothesis.log_probs),
            finished=hypothesis.ended,
        )

    def words(self, output: Output) -> list[Word]:
        """The words of an output, and how sure the model was of each."""
        apart = self.tokenizers.target.kind == "words"
        return words_of(output.text, output.tokens, output.token_scores, apart)

    def word_after(self, prefix: str, output: Output) -> Word:
        """The word of an output that comes after its prefix: the first that does not end within it."""
        place = 0
        for word in self.words(output):
            place = output.text.index(word.text, place) + len(word.text)
            if place > len(prefix):
                return word
        return Word("", 1.0)


def members_of(run: RunPath) -> list[Path]:
    """The run folders that a word, path or list names. Raises ValueError for none."""
    if not isinstance(run, str | Path):
        folders = [Path(folder) for folder in run]
    elif os.path.isdir(run):  # noqa: PTH112 - a path raises for a name that is too long to be one folder's
        folders = [Path(run)]
    else:
        folders = [Path(word) for word in str(run).split("+") if word]
    if not folders:
        raise ValueError("there is no run; give the folder that `antiphon train` wrote.")
    return folders


def read_config(folder: Path) -> Config:
    """The settings of a run. Raises ValueError when there is no run."""
    return changed(Config(), _read_json(folder, CONFIG), str(folder / CONFIG))


def read_facts(folder: Path) -> Facts:
    try:
        return Facts(**_read_json(folder, FACTS))
    except TypeError as error:
        message = f"{folder / FACTS}: is not what training writes ({error}); train again, or restore the file."
        raise ValueError(message) from None


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; give the folder that `antiphon train` wrote.")
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{folder}: has no {name}, so it is not a trained model; give the folder that `antiphon train` wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / name}: cannot be read ({error}); train again, or restore the file.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{folder / name}: holds no JSON object; train again, or restore the file.")
    return found
