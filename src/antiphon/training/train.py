"""From pairs to a trained model in a run folder: what `antiphon train` and `antiphon.train` call."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from antiphon import run, text_side, tokenizer
from antiphon.config import Config, MetricName, changed, load_config, preset_for
from antiphon.data.batches import EncodedPairs, padding_share
from antiphon.data.mixture import tags_of
from antiphon.data.pairs import Pair, given_pairs, split_pairs
from antiphon.data.swaps import Swaps
from antiphon.ids import UNK
from antiphon.run import Model
from antiphon.text_side import CHECKPOINTS, METRICS, Facts, RunPath
from antiphon.tokenizer import TokenizerPair, train_tokenizers
from antiphon.training import checkpoint, loop
from antiphon.training.checkpoint import Progress
from antiphon.training.finetune import Origin, refuse_without_origin
from antiphon.training.loop import StepReport, Trainer, Validation
from antiphon.training.precision import PrecisionError, choose_precision
from antiphon.training.validator import Validator

LIMITS = ("max_steps", "max_epochs", "max_minutes", "patience")  # what may change when a run is resumed


@dataclass(frozen=True)
class Kept:
    """Which weights a finished run keeps, their dev metric, and what ended it."""

    kept: str
    metric: str
    value: float | None
    ended: str


class Listener(loop.Listener, Protocol):
    """What wants to know how a training goes, from its beginning."""

    def started(self, model: Model, resumed: bool) -> None: ...

    def finished(self, kept: Kept) -> None: ...


class Listeners:
    """Several listeners as one; none is silence."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self.listeners = listeners

    def started(self, model: Model, resumed: bool) -> None:
        for listener in self.listeners:
            listener.started(model, resumed)

    def finished(self, kept: Kept) -> None:
        for listener in self.listeners:
            listener.finished(kept)

    def stepped(self, report: StepReport) -> None:
        for listener in self.listeners:
            listener.stepped(report)

    def validated(self, step: int, validation: Validation, best: bool) -> None:
        for listener in self.listeners:
            listener.validated(step, validation, best)


def train(
    pairs: str | Path | Sequence[Pair],
    out: str | Path,
    *,
    dev: str | Path | Sequence[Pair] | None = None,
    tags: Sequence[str] = (),
    config: Config | None = None,
    begin_from: RunPath | None = None,
    resume: bool = False,
    listener: Listener | None = None,
    wanted: Callable[[], bool] = lambda: True,
) -> Model:
    """Trains a model that imitates `pairs` (a file, or pairs) and returns it; everything is kept in the folder `out`.

    dev: pairs that are measured and never learned from; None: some of `pairs` are set aside. tags: what sources begin
    with, where `pairs` is not the name of a mixture, which tells them; for none, those of `begin_from`. config: all
    settings; None: the preset for the size of the data. begin_from: a run to begin from (fine-tuning): its tokenizers
    (with `training.own_tokens`, such as cut text alike), those of its weights that fit, and where `config` is None its
    settings. resume: go on with the run in `out`, with its settings (config: only other limits). wanted: asked before
    each update; once False, the run is saved and can be resumed. Raises ValueError, in a sentence, for data or settings
    that cannot be, before anything is written.
    """
    out = Path(out)
    origin = None if begin_from is None else Origin.read(begin_from)
    if resume:
        if origin:
            raise ValueError(f"{out}: a run that goes on has its own weights; leave begin_from away.")
        config = _stored_config(out, config)
    else:
        refuse_existing(out)
    if origin:
        config = origin.checked(config) if config else origin.settings()
    elif config and not resume:
        refuse_without_origin(config)
    train_pairs: Collection[Pair] = given_pairs(pairs)
    if config is None:
        config = load_config(preset_for(len(train_pairs)), None)
    dev_pairs: Collection[Pair]
    if dev is None:
        train_pairs, dev_pairs = split_pairs(train_pairs, config.training.dev_pairs)
    else:
        dev_pairs = given_pairs(dev)
    if resume:
        prepared = _resume(out, config, train_pairs, dev_pairs)
    else:
        tags = (tags_of(pairs) if isinstance(pairs, str) else ()) or tags
        if origin and not tags:
            tags = text_side.read_facts(origin.folder).tags
        prepared = _prepare(out, config, train_pairs, dev_pairs, tags, origin)
    listener = listener or Listeners()
    listener.started(prepared[0], resume)
    return _fit(out, *prepared, listener, wanted)


def refuse_existing(out: Path) -> None:
    """Raises ValueError when `out` holds a run, or cannot be a folder."""
    if (out / text_side.CONFIG).exists():
        raise ValueError(f"{out}: there is a run already; go on with it (--resume), or choose another folder.")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; choose another folder for the run.")
    for name in (CHECKPOINTS, METRICS, run.WEIGHTS, run.LOSS_CURVE):
        if (out / name).exists():
            raise ValueError(f"{out}: is no run, and has {name}, which would be lost; choose another folder.")


def _prepare(
    out: Path,
    config: Config,
    train_pairs: Collection[Pair],
    dev_pairs: Collection[Pair],
    tags: Sequence[str],
    origin: Origin | None,
) -> tuple[Model, EncodedPairs, EncodedPairs]:
    """A new model and its data; the settings that were "auto" are decided, and stored."""
    if origin:
        tokenizers = origin.tokenizers_for(train_pairs, config, tags)
    else:
        tokenizers = train_tokenizers(train_pairs, config.tokenizer, tags)
    data = _encode(train_pairs, tokenizers, config, "training data")
    dev_data = _encode(dev_pairs, tokenizers, config, "dev data")
    if config.training.swap_words:
        Swaps(data)  # refuses data without such words, while nothing is written
    model = Model.new(config, tokenizers, _facts(data, dev_data, config, tags))
    if origin:
        taken = origin.give_weights(model.network, tokenizers)
        model.side.facts = replace(model.facts, begun_from=str(origin.folder), begun_parameters=taken)
    precision = _precision(model, data, config)
    decided = {
        "metric": _metric(config.training.metric, tokenizers),
        "precision": str(precision).removeprefix("torch."),
    }
    kinds = {
        "source": tokenizers.source.kind,
        "target": tokenizers.target.kind,
        "joint": tokenizers.joint,
    }
    model.side.config = changed(config, {"training": decided, "tokenizer": kinds})
    model.save_settings(out)
    return model, data, dev_data


def _resume(
    out: Path, config: Config, train_pairs: Collection[Pair], dev_pairs: Collection[Pair]
) -> tuple[Model, EncodedPairs, EncodedPairs]:
    tokenizers = tokenizer.load(out)
    facts = text_side.read_facts(out)
    data = _encode(train_pairs, tokenizers, config, "training data")
    if data.fingerprint() != facts.fingerprint:
        raise ValueError(
            f"{out}: was trained on other pairs ({facts.train_pairs} then, {len(data)} now, or in another order); "
            "resume with the same files."
        )
    dev_data = _encode(dev_pairs, tokenizers, config, "dev data")
    if len(dev_data) != facts.dev_pairs or facts.dev_fingerprint not in ("", dev_data.fingerprint()):
        raise ValueError(
            f"{out}: was measured on other pairs ({facts.dev_pairs} then, {len(dev_data)} now, or in another order); "
            "resume with the same dev pairs."
        )
    _refuse_lost(out)
    model = Model.new(config, tokenizers, facts)
    if facts.begun_from and checkpoint.newest(out / CHECKPOINTS) is None:
        Origin.read(facts.begun_from).give_weights(model.network, tokenizers)
    try:
        _precision(model, data, config)
    except PrecisionError:
        raise ValueError(
            f"{out}: is trained in bfloat16, in which this machine cannot train this model; resume it on one that can, "
            "or train anew with training.precision=float32."
        ) from None
    model.save_config(out)
    return model, data, dev_data


def _refuse_lost(out: Path) -> None:
    """Raises ValueError for a run whose checkpoints are gone: it would begin anew, over the weights that it kept. One
    that was killed before its first checkpoint has been validated once at most."""
    log = out / METRICS
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    is_begun = bool(text) and text.count('"dev_loss":') <= 1 and '"kept":' not in text
    if (out / run.WEIGHTS).exists() and not is_begun and checkpoint.newest(out / CHECKPOINTS) is None:
        raise ValueError(
            f"{out / CHECKPOINTS}: has no checkpoint to go on from; restore it, or train anew into another folder."
        )


def _precision(model: Model, data: EncodedPairs, config: Config) -> torch.dtype:
    """In what to compute; the model goes to its device."""
    model.network.to(run.find_device(config.training.device))
    first = next(data.batches(config.training.batch_tokens, config.training.seed, 0)).to(model.network.device)
    return choose_precision(config.training.precision, model.network.train(), first)


def _stored_config(out: Path, config: Config | None) -> Config:
    """The settings of the run in `out`, with the limits of `config`, which may differ; nothing else may."""
    stored = text_side.read_config(out)
    if config is None:
        return stored
    limits = {name: getattr(config.training, name) for name in LIMITS}
    merged = changed(stored, {"training": limits})
    for table in ("tokenizer", "model", "training", "generation"):
        for name, wanted in getattr(config, table):
            kept = getattr(getattr(merged, table), name)
            if wanted not in (kept, "auto"):
                raise ValueError(
                    f"{out}: {table}.{name} of a run cannot be changed: it is {kept!r}, not {wanted!r}; resume with "
                    f"other limits only ({', '.join(LIMITS)})."
                )
    return merged


def _fit(
    out: Path,
    model: Model,
    data: EncodedPairs,
    dev_data: EncodedPairs,
    listener: Listener,
    wanted: Callable[[], bool],
) -> Model:
    config = model.config.training
    validator = Validator(model, dev_data)
    trainer = Trainer(
        model=model.network,
        data=data,
        config=config,
        checkpoints=out / CHECKPOINTS,
        metrics=out / METRICS,
        validate=validator,
        keep_best=lambda: model.save_weights(out),
        listener=listener,
        wanted=wanted,
    )
    progress = trainer.fit()
    model.network.eval()
    if progress.finished:
        listener.finished(_keep_better(out, model, validator, progress))
    elif progress.best_score is None:
        model.save_weights(out)
    from antiphon.plots import loss_curve

    loss_curve(out / METRICS, out / run.LOSS_CURVE)
    return model


def _keep_better(out: Path, model: Model, validator: Validator, progress: Progress) -> Kept:
    """The average of the last checkpoints, if it is better on the dev set than the best one; else that."""
    config = model.config.training
    averaged = len(checkpoint.validated(out / CHECKPOINTS, config.average))
    if averaged > 1:
        checkpoint.load_parameters(model.network, checkpoint.average(out / CHECKPOINTS, config.average))
        with torch.inference_mode():
            found = validator()
        if progress.best_score is None or found.score > progress.best_score:
            model.save_weights(out)
            progress.best = f"the average of the last {averaged} validated checkpoints"
            progress.best_score, progress.best_value = found.score, found.value
            checkpoint.update(out / CHECKPOINTS, progress)  # a run that goes on has this to beat
    run.load_weights(model.network, out / run.WEIGHTS)
    kept = Kept(progress.best, config.metric, progress.best_value, progress.finished)
    with (out / METRICS).open("a", encoding="utf-8") as log:
        log.write(json.dumps({"step": progress.step, **asdict(kept)}) + "\n")
    return kept


def _encode(pairs: Collection[Pair], tokenizers: TokenizerPair, config: Config, what: str) -> EncodedPairs:
    data = EncodedPairs(pairs, tokenizers, config.training.max_length)
    if not len(data):
        raise ValueError(
            f"{what}: no pair can be used: of {len(pairs)}, {data.num_empty} have an empty side and "
            f"{data.num_too_long} have more than {config.training.max_length} tokens on one; "
            "check the file, or raise training.max_length."
        )
    return data


def _facts(data: EncodedPairs, dev_data: EncodedPairs, config: Config, tags: Sequence[str]) -> Facts:
    return Facts(
        train_pairs=len(data),
        dev_pairs=len(dev_data),
        empty_pairs=data.num_empty + dev_data.num_empty,
        too_long_pairs=data.num_too_long + dev_data.num_too_long,
        longest_source=int(data.sources.lengths.max()),
        longest_target=int(data.targets.lengths.max()),
        length_ratio=round(float(np.quantile(data.targets.lengths / data.sources.lengths, 0.999)), 4),
        padding_share=round(padding_share(data, config.training.batch_tokens), 4),
        fingerprint=data.fingerprint(),
        dev_fingerprint=dev_data.fingerprint(),
        tags=_learned_tags(tags, data.pairs),
        unknown_tokens=sum(int((side.ids == UNK).sum()) for side in (data.sources, data.targets)),
    )


def _learned_tags(tags: Sequence[str], pairs: Iterable[Pair]) -> list[str]:
    """Those that a source begins with, in their order."""
    unseen = set(tags)
    for pair in pairs:
        if not unseen:
            break
        first, space, _ = pair.source.partition(" ")
        if space:
            unseen.discard(first)
    return [tag for tag in tags if tag not in unseen]


def _metric(metric: MetricName, tokenizers: TokenizerPair) -> MetricName:
    """What suits the targets: whole outputs of symbols or characters, the words of sentences."""
    if metric != "auto":
        return metric
    return "exact_match" if tokenizers.target.kind in ("words", "chars") else "bleu"
