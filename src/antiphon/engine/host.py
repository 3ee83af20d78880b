"""What an engine process, or an engine thread of a server, consists of: models, loaded and warm, and an engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from operator import itemgetter
from typing import Any

import torch

from antiphon.config import GenerationConfig
from antiphon.decoding.generate import Wanted, decode
from antiphon.decoding.search import make_search
from antiphon.engine.engine import Deliver, Engine
from antiphon.engine.messages import Hosted
from antiphon.engine.request import Call
from antiphon.ids import BOS, EOS
from antiphon.run import Model
from antiphon.trace import trace


def make_engine(hosted: Hosted, deliver: Deliver) -> Engine:
    """Loads the models and warms them up. Raises ValueError, in a sentence, for a model that cannot be had."""
    if hosted.threads:
        torch.set_num_threads(hosted.threads)
    models = {name: Model.load(run, hosted.device, hosted.precision) for name, run in hosted.runs.items()}
    for model in models.values():
        _warm_up(model)
    predictors = {name: model.predictor for name, model in models.items()}
    return Engine(predictors, deliver, partial(perform, models), hosted.limits)


def _warm_up(model: Model) -> None:
    """Memory is taken and kernels are built now, not at the first requests."""
    source = [*range(EOS + 1, min(EOS + 9, model.tokenizers.source.vocab_size)), EOS]
    for width, count in ((1, 1), (4, 8)):
        settings = GenerationConfig(beam_size=width)
        decode(model.predictor, [source] * count, [make_search(settings, 8) for _ in range(count)])


def perform(models: Mapping[str, Model], call: Call, wanted: Wanted) -> Any:
    """Does a call: plain values in and out. Raises ValueError for what cannot be asked."""
    method, model = METHODS[call.method], models[call.model]
    return method(model, wanted, **call.arguments)


def score(model: Model, wanted: Wanted, pairs: list[tuple[str, str]]) -> list[float]:
    """The log-probability of each pair's target, given its source."""
    return model.score(pairs, wanted)


def align(
    model: Model, wanted: Wanted, texts: list[str], prefix: str, settings: dict[str, Any], longest: int
) -> list[list[dict[str, Any]]]:
    """As Model.outputs, each with its attention (tokens, source tokens): the mean over the heads of the last layer."""
    parts = model.stream(texts, prefix=prefix, attention=True, longest=longest, wanted=wanted, **settings)
    found = sorted(parts, key=itemgetter(0))
    return [[_with_plain_attention(output) for output in outputs] for _, outputs in found]


def _with_plain_attention(output: Any) -> dict[str, Any]:
    attention = None if output.attention is None else output.attention[:, -1].mean(1)
    return asdict(output) | {"attention": [] if attention is None else attention.tolist()}


@torch.inference_mode()
def following(model: Model, _: Wanted, source: Sequence[int], prefix: Sequence[int], count: int) -> list[int]:
    """The most probable tokens after a prefix of the output, best first: none that ends it, or is no text."""
    predictor = model.predictor
    fed = torch.tensor([[BOS, *prefix]], device=predictor.device)
    logits = predictor.teacher_forced([source], fed)[0, -1]
    logits[: EOS + 1] = -torch.inf
    found: list[int] = logits.topk(min(count, len(logits) - EOS - 1)).indices.tolist()
    return found


def explain(model: Model, _: Wanted, text: str, settings: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """A Trace of one decode, as plain values."""
    return asdict(trace(model, text, **arguments, **settings))


# What may take minutes ends early, with less, where nobody wants it any more; one decode or one step does not.
METHODS: dict[str, Callable[..., Any]] = {"score": score, "align": align, "following": following, "trace": explain}
