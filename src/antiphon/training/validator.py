"""How good a model is on dev data: what the training loop asks now and then."""

from collections.abc import Sequence

import torch

from antiphon import metrics
from antiphon.data.batches import EncodedPairs
from antiphon.model.seq2seq import Seq2Seq
from antiphon.run import Model
from antiphon.training.loop import Validation
from antiphon.training.loss import batch_loss

SAMPLES = 8  # dev sources whose outputs are kept


class Validator:
    """Measures a model on dev data: loss a token, and a metric of decoded outputs (greedy). Keeps some of these: always
    of the same sources, from the shortest to the longest."""

    def __init__(self, model: Model, dev_data: EncodedPairs) -> None:
        self.model = model
        self.data = dev_data
        references: dict[str, list[str]] = {}
        for pair in dev_data.pairs:
            references.setdefault(pair.source, []).append(model.tokenizers.target.as_written(pair.target))
        every = -(-len(references) // model.config.training.eval_pairs)  # a file may be sorted: not the first ones only
        self.sources = list(references)[::every]
        self.references = [references[source] for source in self.sources]
        self.sampled = _spread_by_length(self.sources, SAMPLES)

    def __call__(self) -> Validation:
        config = self.model.config.training
        loss = self._loss(self.model.network)
        if config.metric == "loss":
            return Validation(loss, "loss", loss, -loss, self._samples(self._decode(self.sampled)))
        outputs = self._decode(range(len(self.sources)))
        value = metrics.compute(config.metric, outputs, self.references)
        sign = 1 if metrics.HIGHER_IS_BETTER[config.metric] else -1
        samples = self._samples([outputs[index] for index in self.sampled])
        return Validation(loss, config.metric, value, sign * value - min(loss, 100.0) * 1e-4, samples)

    def _decode(self, indices: Sequence[int]) -> list[str]:
        """The greedy outputs of some of the sources."""
        sources = [self.sources[index] for index in indices]
        return self.model.generate(sources, beam_size=1, n_best=1, sample=False)

    def _samples(self, outputs: Sequence[str]) -> list[dict[str, str]]:
        """The outputs of the sampled sources, as records to look at."""
        return [
            {"source": self.sources[index], "reference": self.references[index][0], "output": output}
            for index, output in zip(self.sampled, outputs, strict=True)
        ]

    def _loss(self, network: Seq2Seq) -> float:
        """Nats a target token, over all dev pairs."""
        total = 0.0
        for indices in self.data.in_order(self.model.config.training.batch_tokens):
            batch = self.data.batch(indices).to(network.device)
            total += batch_loss(network, batch, 0.0, torch.float32)[1].item()
        return total / int(self.data.targets.lengths.sum())


def _spread_by_length(texts: Sequence[str], count: int) -> list[int]:
    """The indices of so many texts, evenly from the shortest to the longest; fewer where there are no more."""
    order = sorted(range(len(texts)), key=lambda index: (len(texts[index]), index))
    count = min(count, len(order))
    return [order[rank * (len(order) - 1) // max(1, count - 1)] for rank in range(count)]
