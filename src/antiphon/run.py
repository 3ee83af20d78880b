"""A run folder and the model in it: text in, text out.

    config.json               every setting that was used
    facts.json                what was learned about the data: sizes, lengths, what was left out
    tokenizer.json            or source.tokenizer.json and target.tokenizer.json
    model.safetensors         the weights that were best on the dev set
    metrics.jsonl, loss.png   how the training went
    checkpoints/              where it can be taken up again

No pickle is read or written.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from antiphon import files, tokenizer
from antiphon.choosing import Choice, phrases_by
from antiphon.config import Config, GenerationConfig, generation_settings
from antiphon.decoding.generate import Wanted, decode_stream
from antiphon.decoding.search import Hypothesis, make_search
from antiphon.ids import BOS, EOS, PAD, UNK
from antiphon.model.ensemble import Ensemble
from antiphon.model.packed import WORTH, Precision, copy_weights, gain, pack
from antiphon.model.seq2seq import Seq2Seq, build
from antiphon.text_side import BLANK, CONFIG, FACTS, Facts, Output, RunPath, TextSide, members_of, read_config
from antiphon.tokenizer import TokenizerPair

WEIGHTS, LOSS_CURVE = "model.safetensors", "loss.png"
FEWEST_SOURCES = 8  # for a worker
LONGEST = 8  # times training.max_length: tokens of a source that is decoded
SHOWN = 40  # characters of a text in a message
SCORE_TOKENS = 4096  # padded target tokens scored at once


class Model:
    """A trained encoder-decoder with its tokenizers; or an ensemble: several of them, which decide together."""

    def __init__(self, members: Sequence[Seq2Seq], side: TextSide) -> None:
        self.members = list(members)
        self.side = side
        self.precision: Precision = "float32"  # of the linear layers
        self.workers = 0  # running batches side by side, each on one core; 0: one, on torch's own number of threads

    @classmethod
    def new(cls, config: Config, tokenizers: TokenizerPair, facts: Facts) -> Self:
        """A model with random weights."""
        sizes = (tokenizers.source.vocab_size, tokenizers.target.vocab_size)
        network = build(config.model, *sizes, tokenizers.joint, config.training.seed)
        return cls([network], TextSide(tokenizers, config, facts))

    @classmethod
    def load(
        cls, run: RunPath, device: str = "cpu", precision: Precision | Literal["auto"] = "auto", workers: int = 0
    ) -> Self:
        """The model in a run folder, or the ensemble of those in several (as "RUN+RUN", or a list), for inference.

        precision: of the linear layers; "auto" is int8 where a short timing finds it faster on this processor. workers:
        running batches side by side; 0: one for each of torch's threads. Raises ValueError, in a sentence, when there
        is no model, it is broken, an ensemble's vocabularies differ, or the device or precision cannot be had.
        """
        if precision not in ("auto", *get_args(Precision)):
            raise ValueError(f"precision is {precision!r}; it can be auto, {' or '.join(get_args(Precision))}.")
        if workers < 0:
            raise ValueError(f"workers is {workers}; give a number of running batches, or 0 for one a core.")
        model = cls([], TextSide.load(run))
        for folder in members_of(run):
            network = _read_network(folder, model.side).to(find_device(device))
            if precision == "int8" or (precision == "auto" and gain(network) > WORTH):
                pack(network)
                model.precision = "int8"
            else:
                copy_weights(network)
            model.members.append(network)
        if network.device.type == "cpu":
            model.workers = workers or torch.get_num_threads()
        return model

    @property
    def network(self) -> Seq2Seq:
        """The only one. Raises ValueError for an ensemble, where one is not all."""
        if len(self.members) != 1:
            raise ValueError(f"this can be done with one run, and here are {len(self.members)}; give one of them.")
        return self.members[0]

    @property
    def predictor(self) -> Seq2Seq | Ensemble:
        """What gives the next token's probabilities."""
        return self.members[0] if len(self.members) == 1 else Ensemble(self.members)

    def save(self, folder: Path) -> None:
        """Everything that `load` needs. The weights come last. Raises ValueError as `save_weights` does."""
        self._savable()
        self.save_settings(folder)
        self.save_weights(folder)

    def save_settings(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(self.tokenizers, folder)
        files.write_text(folder / FACTS, json.dumps(asdict(self.facts), indent=2) + "\n")
        self.save_config(folder)

    def save_config(self, folder: Path) -> None:
        files.write_text(folder / CONFIG, self.config.model_dump_json(indent=2) + "\n")

    def save_weights(self, folder: Path) -> None:
        """Raises ValueError for an ensemble, and for a model that was loaded in another precision than float32."""
        files.write_tensors(folder / WEIGHTS, dict(self._savable().named_parameters()))

    def _savable(self) -> Seq2Seq:
        """The network, if its weights can be saved."""
        if self.precision != "float32":
            raise ValueError(
                f"the weights are in {self.precision} now; load the model with precision='float32' to save."
            )
        return self.network

    def generate(self, sources: Sequence[str], *, prefix: str = "", **settings: Any) -> list[str]:
        """The best output for each source, in order. Settings are those of `GenerationConfig`, e.g. beam_size=5."""
        return [outputs[0].text for outputs in self.outputs(sources, prefix=prefix, **settings)]

    def outputs(
        self, sources: Sequence[str], *, prefix: str = "", attention: bool = False, **settings: Any
    ) -> list[list[Output]]:
        """The n best outputs for each source, best first, with scores.

        prefix: text that every output begins with. attention: keep the cross-attention weights. mbr, among settings: so
        many samples are drawn, and the best outputs are those that are most like all of them (`consensus`); their
        temperature is 0.7 unless told. keep, too: a regular expression; of a beam's hypotheses, those come first that
        leave out the fewest of the phrases that it finds in the source. Raises ValueError for a setting that cannot be.
        """
        found: dict[int, list[Output]] = {}
        for index, outputs in self.stream(sources, prefix=prefix, attention=attention, **settings):
            found[index] = outputs
        return [found[index] for index in range(len(sources))]

    def stream(
        self,
        sources: Sequence[str],
        *,
        prefix: str = "",
        attention: bool = False,
        mbr: int | None = None,
        keep: str | None = None,
        longest: int | None = None,
        wanted: Wanted = lambda: True,
        **settings: Any,
    ) -> Iterator[tuple[int, list[Output]]]:
        """As `outputs`, but yields (index of the source, outputs) as each ends. A blank source has a blank output.

        longest: tokens that an output may have, whatever its settings and its source would let it have. wanted: asked
        before each step; False ends it.
        """
        if isinstance(sources, str):
            raise ValueError("sources: expected a list of texts, found one text; write [text].")
        for number, source in enumerate(sources, 1):
            if not isinstance(source, str):
                raise ValueError(f"source {number}: expected a text, found {source!r:.60}; give texts only.")
        n_best = self.config.generation.n_best if settings.get("n_best") is None else settings["n_best"]
        choice = Choice(n_best, mbr, None if keep is None else phrases_by(keep))
        chosen = generation_settings(self.config.generation, **choice.to_search(settings, self.config.generation))
        asked = [index for index, source in enumerate(sources) if source.strip()]
        yield from ((index, [BLANK]) for index, source in enumerate(sources) if not source.strip())
        ids = [self._readable_ids(sources[index]) for index in asked]
        forced = self.side.prefix_ids(prefix)
        if UNK in forced:
            raise ValueError(f"prefix: the model does not know all of {prefix!r}, and cannot say it; change it.")
        searches = [make_search(chosen, self.max_length(len(source), chosen, longest), forced) for source in ids]
        workers = min(self.workers, max(1, len(ids) // FEWEST_SOURCES))
        if workers == 1 and self.precision == "float32":
            workers = 0  # whose products many threads share better than the kernels of int8
        for place, hypotheses in decode_stream(self.predictor, ids, searches, attention, workers, wanted):
            outputs = [self.output(hypothesis) for hypothesis in hypotheses]
            yield asked[place], outputs if choice.is_by_search else choice.among(sources[asked[place]], outputs)

    def _readable_ids(self, source: str) -> list[int]:
        """The ids of a source. Raises ValueError for one so long that its memory could not be had."""
        ids, limit = self.source_ids(source), LONGEST * self.config.training.max_length
        if len(ids) - 1 > limit:
            raise ValueError(
                f"source {source[:SHOWN]!r}...: has {len(ids) - 1:,} tokens, and at most {limit:,} can be read at once "
                f"({LONGEST} times what was learned from); give it in parts."
            )
        return ids

    @property
    def tokenizers(self) -> TokenizerPair:
        return self.side.tokenizers

    @property
    def config(self) -> Config:
        return self.side.config

    @property
    def facts(self) -> Facts:
        return self.side.facts

    def source_ids(self, text: str) -> list[int]:
        """As `TextSide.source_ids`."""
        return self.side.source_ids(text)

    def max_length(self, source_length: int, settings: GenerationConfig, longest: int | None = None) -> int:
        """As `TextSide.max_length`."""
        return self.side.max_length(source_length, settings, longest)

    def output(self, hypothesis: Hypothesis) -> Output:
        """A hypothesis as text, with its attention where it was kept."""
        seen = [weights for weights in hypothesis.attention if isinstance(weights, Tensor)]
        return replace(self.side.output(hypothesis), attention=torch.stack(seen) if seen else None)

    @torch.inference_mode()
    def score(self, pairs: Sequence[tuple[str, str]], wanted: Wanted = lambda: True) -> list[float]:
        """The log-probability (natural logarithm) of each pair's target, given its source, with its EOS.

        wanted: asked before each batch; once False, the scores that are missing are nan.
        """
        sources = [self.source_ids(source) for source, _ in pairs]
        targets = [self.tokenizers.target.encode(target) for _, target in pairs]
        order = sorted(range(len(pairs)), key=lambda index: max(len(sources[index]), len(targets[index])))
        scores = [math.nan] * len(pairs)
        while order and wanted():
            longest = max(len(sources[order[-1]]), len(targets[order[-1]]) + 1)
            count = max(1, SCORE_TOKENS // longest)
            chosen, order = order[-count:], order[:-count]
            found = self._score_batch([sources[index] for index in chosen], [targets[index] for index in chosen])
            for index, value in zip(chosen, found.tolist(), strict=True):
                scores[index] = value
        return scores

    def _score_batch(self, sources: list[list[int]], targets: list[list[int]]) -> Tensor:
        """(B,) log-probabilities."""
        predictor = self.predictor
        length = max(len(target) for target in targets) + 1
        rows = [[BOS, *target, *[PAD] * (length - 1 - len(target))] for target in targets]
        target_in = torch.tensor(rows, device=predictor.device)
        rows = [[*target, EOS, *[PAD] * (length - 1 - len(target))] for target in targets]
        target_out = torch.tensor(rows, device=predictor.device)
        logits = predictor.teacher_forced(sources, target_in).float()
        right = logits.gather(2, target_out.unsqueeze(2)).squeeze(2) - logits.logsumexp(2)
        return (right * (target_out != PAD)).sum(1)


def load(run: RunPath, device: str = "cpu", precision: Precision | Literal["auto"] = "auto", workers: int = 0) -> Model:
    """As `Model.load`."""
    return Model.load(run, device, precision, workers)


def _read_network(folder: Path, side: TextSide) -> Seq2Seq:
    """That of a run folder, with the vocabularies of `side`, on the file's own memory."""
    with torch.random.fork_rng(devices=[]), _NoRandomNumbers():  # a caller's random numbers are the caller's
        network = Model.new(read_config(folder), side.tokenizers, side.facts).network
    load_weights(network, folder / WEIGHTS, mapped=True)
    return network.eval()


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. Raises ValueError for one that cannot be had."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"device {name!r} cannot be had on this machine; take cpu, or auto.") from None


class _NoRandomNumbers(TorchFunctionMode):
    """Makes weights without filling them: they are about to be read."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def load_weights(network: Seq2Seq, file: Path, mapped: bool = False) -> None:
    """Puts the weights of a safetensors file into the network. mapped: they are the file's own memory, not copied.

    Raises ValueError when they do not fit.
    """
    tensors, parameters = read_weights(file), dict(network.named_parameters())
    if more := tensors.keys() - parameters.keys():
        raise ValueError(
            f"{file}: has a tensor {min(more)!r} too many; it belongs to another model than its {CONFIG} tells."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            if name not in tensors:
                raise ValueError(
                    f"{file}: has no tensor {name!r}; it belongs to another model than its {CONFIG} tells."
                )
            tensor = tensors[name]
            if tensor.shape != parameter.shape:
                raise ValueError(
                    f"{file}: tensor {name!r} is {list(tensor.shape)}, expected {list(parameter.shape)}; "
                    f"it belongs to another model than its {CONFIG} tells."
                )
            if mapped:
                parameter.data = tensor.to(parameter.dtype)
            else:
                parameter.copy_(tensor)


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the file's own memory. Raises ValueError when there are none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.exists():
        raise ValueError(f"{file}: there are no weights yet; the training has not reached its first validation.")
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: cannot be read as weights ({error}); train again, or restore the file.") from None
