"""Fine-tuning: a training that begins from a trained run, with its tokenizers, and with the weights that fit."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from antiphon import tokenizer
from antiphon.config import Config, TokenizerConfig, changed, with_overrides
from antiphon.model.seq2seq import Seq2Seq
from antiphon.run import WEIGHTS, read_weights
from antiphon.text_side import RunPath, members_of, read_config
from antiphon.tokenizer import TokenizerPair

# Of a table that several share, the weights have the last of these names that is in them.
TIED = {"decoder.embedding.weight": "decoder.output", "decoder.output": "encoder.embedding.weight"}


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
        is chosen anew. Raises ValueError for what cannot be."""
        own = changed(self.config, {"training": {"precision": "auto"}})
        return self.checked(with_overrides(own, words, file))

    def checked(self, config: Config) -> Config:
        """Settings for a training from here: `config`, with the tokenizers of the run. Raises ValueError where `config`
        wants others, or another width."""
        own = self.config.tokenizer.model_dump()
        wanted = own if config.tokenizer == TokenizerConfig() else config.tokenizer.model_dump()
        kept = {f"tokenizer.{name}": (own[name], value) for name, value in wanted.items()}
        kept["model.d_model"] = (self.config.model.d_model, config.model.d_model)
        for name, (there, here) in kept.items():
            if here not in (there, "auto"):
                raise ValueError(
                    f"{self.folder}: a training that begins from a run keeps its tokens and its width: {name} is "
                    f"{there!r} there, and cannot be {here!r}; leave the setting away, or train from nothing."
                )
        return changed(config, {"tokenizer": own})

    @torch.no_grad()
    def give_weights(self, network: Seq2Seq) -> int:
        """Copies the weights that have a name and a shape of the network's; how many numbers that were."""
        tensors, taken = read_weights(self.folder / WEIGHTS), 0
        for name, parameter in network.named_parameters():
            while name not in tensors and name in TIED:
                name = TIED[name]
            if name in tensors and tensors[name].shape == parameter.shape:
                parameter.copy_(tensors[name])
                taken += parameter.numel()
        return taken
