"""Fine-tuning: a training that begins from a trained run, with its way to cut text, and with the weights that fit."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from antiphon import tokenizer
from antiphon.config import Config, TokenizerConfig, changed, with_overrides
from antiphon.data.pairs import Pair
from antiphon.model.seq2seq import Seq2Seq
from antiphon.run import WEIGHTS, read_weights
from antiphon.text_side import RunPath, members_of, read_config
from antiphon.tokenizer import Tokenizer, TokenizerPair, train_tokenizers

# Of a table that several share, the weights have the last of these names that is in them.
TIED = {"decoder.embedding.weight": "decoder.output", "decoder.output": "encoder.embedding.weight"}
TABLES = {"encoder.embedding.weight", *TIED}  # which have a row for each token


@dataclass(frozen=True)
class Origin:
    """The run that a training begins from."""

    folder: Path
    config: Config
    tokenizers: TokenizerPair

    @classmethod
    def read(cls, run: RunPath) -> Self:
        """Raises ValueError, in a sentence, when there is no run, and for an ensemble."""
        folder, *others = members_of(run)
        if others:
            raise ValueError(f"{run}: is an ensemble of {1 + len(others)} runs; begin from one of them.")
        return cls(folder, read_config(folder), tokenizer.load(folder))

    def settings(self, file: Path | None = None, words: Iterable[str] = ()) -> Config:
        """The run's own, with a TOML file over them and `table.key=value` words over both; in what precision to compute
        is chosen anew, and tokens are kept, whatever that run did with its own origin's. Raises ValueError for what
        cannot be."""
        own = changed(self.config, {"training": {"precision": "auto", "own_tokens": False}})
        return self.checked(with_overrides(own, words, file))

    def checked(self, config: Config) -> Config:
        """Settings for a training from here: `config`, with the run's way to cut text. Raises ValueError where `config`
        wants another, or another width."""
        own = self.config.tokenizer.model_dump()
        wanted = own if config.tokenizer == TokenizerConfig() else config.tokenizer.model_dump()
        if config.training.own_tokens:
            own["vocab_size"] = wanted["vocab_size"]
        kept = {f"tokenizer.{name}": (own[name], value) for name, value in wanted.items()}
        kept["model.d_model"] = (self.config.model.d_model, config.model.d_model)
        for name, (there, here) in kept.items():
            if here not in (there, "auto"):
                raise ValueError(
                    f"{self.folder}: a training that begins from a run keeps its tokens and its width: {name} is "
                    f"{there!r} there, and cannot be {here!r}; leave the setting away, or train from nothing."
                )
        return changed(config, {"tokenizer": own})

    def tokenizers_for(self, pairs: Collection[Pair], config: Config, tags: Collection[str]) -> TokenizerPair:
        """The run's; under `own_tokens`, such as cut text in its way, of what `pairs` have."""
        return train_tokenizers(pairs, config.tokenizer, tags) if config.training.own_tokens else self.tokenizers

    @torch.no_grad()
    def give_weights(self, network: Seq2Seq, tokenizers: TokenizerPair) -> int:
        """Copies the weights that have a name and a shape of the network's, and of its tables, whose tokens are
        `tokenizers`, the rows of tokens that the run has too; how many numbers that were."""
        tensors, taken = read_weights(self.folder / WEIGHTS), 0
        for name, parameter in network.named_parameters():
            side = "source" if name.startswith("encoder.") else "target"
            is_table = name in TABLES
            while name not in tensors and name in TIED:
                name = TIED[name]
            if name not in tensors:
                continue
            tensor = tensors[name]
            if is_table and tensor.shape[1] == parameter.shape[1]:
                here, there = _same_tokens(getattr(tokenizers, side), getattr(self.tokenizers, side))
                parameter[here] = tensor[there].to(parameter.dtype)
                taken += len(here) * parameter.shape[1]
            elif tensor.shape == parameter.shape:
                parameter.copy_(tensor)
                taken += parameter.numel()
        return taken


def refuse_without_origin(config: Config) -> None:
    """Raises ValueError for settings that only a training has that begins from a run."""
    if config.training.own_tokens:
        raise ValueError("training.own_tokens is for a training that begins from a run (--from); leave it away.")


def _same_tokens(here: Tokenizer, there: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids in both of each token that both have."""
    known = there.vocabulary
    same = [(id, known[name]) for name, id in here.vocabulary.items() if name in known]
    return [id for id, _ in same], [id for _, id in same]
