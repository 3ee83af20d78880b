"""How good a model is on dev data: what the training loop asks now and then."""

import torch

from antiphon import metrics
from antiphon.data.batches import EncodedPairs
from antiphon.model.seq2seq import Seq2Seq
from antiphon.run import Model
from antiphon.training.loop import Validation
from antiphon.training.loss import batch_loss


class Validator:
    """Measures a model on dev data: loss a token, and a metric of decoded outputs (greedy)."""

    def __init__(self, model: Model, dev_data: EncodedPairs) -> None:
        self.model = model
        self.data = dev_data
        references: dict[str, list[str]] = {}
        for pair in dev_data.pairs:
            references.setdefault(pair.source, []).append(pair.target)
        every = -(-len(references) // model.config.training.eval_pairs)  # a file may be sorted: not the first ones only
        self.sources = list(references)[::every]
        self.references = [references[source] for source in self.sources]

    def __call__(self) -> Validation:
        config = self.model.config.training
        loss = self._loss(self.model.network)
        if config.metric == "loss":
            return Validation(loss, "loss", loss, -loss)
        outputs = self.model.generate(self.sources, beam_size=1, n_best=1, sample=False)
        value = metrics.compute(config.metric, outputs, self.references)
        sign = 1 if metrics.HIGHER_IS_BETTER[config.metric] else -1
        return Validation(loss, config.metric, value, sign * value - min(loss, 100.0) * 1e-4)

    def _loss(self, network: Seq2Seq) -> float:
        """Nats a target token, over all dev pairs."""
        total = 0.0
        for indices in self.data.in_order(self.model.config.training.batch_tokens):
            batch = self.data.batch(indices).to(network.device)
            total += batch_loss(network, batch, 0.0, torch.float32)[1].item()
        return total / int(self.data.targets.lengths.sum())
