"""Sequence-level knowledge distillation (Kim and Rush 2016): a student learns what its teacher answers.

The teacher decodes every distinct source with a beam, once; an ordinary training on (source, its best output) follows,
each as often as its source was given. Its run has two files more:

    distilled.json    whose outputs they are, of which sources, and the student's settings
    distilled.jsonl   pairs like any others: {"source": ..., "target": the teacher's output}

Either part can be stopped anywhere, and goes on there. What is set aside to measure on is set aside before decoding.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain, compress, islice, repeat
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from pydantic import ValidationError

from antiphon import files, run, text_side
from antiphon.config import Config, Table, generation_settings, load_config
from antiphon.data.pairs import ChosenPairs, Pair, StoredPairs, given_pairs, iter_pairs, split_pairs
from antiphon.run import LONGEST, Model
from antiphon.text_side import RunPath
from antiphon.training import train as training
from antiphon.training.finetune import Origin, refuse_without_origin

PAIRS, RECORD = "distilled.jsonl", "distilled.json"
PRESET = "fast"
CHUNK = 2048  # sources decoded together, the longest first


class Listener(training.Listener, Protocol):
    """What wants to know how a distillation goes: first its decoding, then its training."""

    def decoded(self, done: int, total: int, empty: int) -> None:
        """So many sources of all are decoded, and so many of their outputs are empty: those for sources that are too
        long for the teacher are. Told at the beginning too."""


class Record(Table):
    """What decoded pairs depend on, and the settings of the student."""

    teacher: str  # for people
    weights: str  # the teacher's, as a hash
    sources: str  # in order, as a hash
    beam_size: int
    keep_true: bool
    config: Config
    begin_from: str | None = None


def distill(
    teacher: Model | RunPath,
    pairs: str | Path | Sequence[Pair],
    out: str | Path,
    *,
    dev: str | Path | Sequence[Pair] | None = None,
    config: Config | None = None,
    beam_size: int = 5,
    keep_true: bool = False,
    begin_from: RunPath | None = None,
    resume: bool = False,
    listener: Listener | None = None,
    wanted: Callable[[], bool] = lambda: True,
    device: str = "cpu",
) -> Model | None:
    """Trains a student on the outputs of `teacher` for the sources of `pairs` and returns it; all is kept in `out`.

    The student is a run like any other, with tokenizers of its own. dev: true pairs that are measured and never learned
    from; None: some of `pairs` are set aside. config: all settings of the student; None: the preset `fast`. keep_true:
    the true pairs are learned from too. begin_from: a run that the student begins from, often the teacher; see `train`.
    resume: go on with the distillation in `out`. wanted: asked after each source and before each update; once False,
    what is done is saved and can be resumed (None is returned if that was before there was a student). device: where a
    teacher that is a folder decodes. Raises ValueError, in a sentence, for a teacher, data or settings that cannot be,
    and for going on with others than it was begun with.
    """
    out = Path(out)
    if resume:
        if begin_from is not None:
            raise ValueError(f"{out}: a distillation goes on as it was begun; leave begin_from away.")
        config, origin = config or settings_of(out), _read_record(out).begin_from
    else:
        refuse_existing(out)
        config, origin = _student_settings(config, begin_from)
    run.find_device(config.training.device)
    model = teacher if isinstance(teacher, Model) else Model.load(teacher, device)
    generation_settings(model.config.generation, beam_size=beam_size, n_best=1, sample=False)
    true_pairs, dev_pairs = _split(pairs, dev, config)
    sources, counts, fingerprint = _distinct(true_pairs)
    record = Record(
        teacher="a model in memory" if isinstance(teacher, Model) else str(teacher),
        weights=_hash_weights(model),
        sources=fingerprint,
        beam_size=beam_size,
        keep_true=keep_true,
        config=config,
        begin_from=origin,
    )
    if resume:
        _check_same(out, _read_record(out), record)
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(out / RECORD, record.model_dump_json(indent=2) + "\n")
    if not _decode(model, sources, out / PAIRS, beam_size, listener, wanted):
        return None
    tags = model.facts.tags
    del model  # its memory is the student's
    learned = chain.from_iterable(map(repeat, iter_pairs(out / PAIRS), counts))
    return training.train(
        StoredPairs(chain(learned, true_pairs if keep_true else ())),
        out,
        dev=dev_pairs,
        tags=tags,
        config=config,
        begin_from=None if _has_student(out) else origin,
        resume=_has_student(out),
        listener=listener,
        wanted=wanted,
    )


def refuse_existing(out: Path) -> None:
    """Raises ValueError when `out` holds a run or a distillation, or cannot be a folder."""
    training.refuse_existing(out)
    if (out / RECORD).exists() or (out / PAIRS).exists():
        raise ValueError(f"{out}: there is a distillation already; go on with it (--resume), or choose another folder.")


def _student_settings(config: Config | None, begin_from: RunPath | None) -> tuple[Config, str | None]:
    """(its settings, the folder of the run that it begins from)."""
    if begin_from is None:
        config = config or load_config(PRESET, None)
        refuse_without_origin(config)
        return config, None
    origin = Origin.read(begin_from)
    return origin.checked(config) if config else origin.settings(), str(origin.folder)


def settings_of(out: Path) -> Config:
    """Those that the student in `out` is trained with, or will be. Raises ValueError when there is no distillation."""
    record = _read_record(out)
    return text_side.read_config(out) if _has_student(out) else record.config


def _has_student(out: Path) -> bool:
    return (out / text_side.CONFIG).exists()


def _read_record(out: Path) -> Record:
    try:
        return Record.model_validate_json((out / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"{out}: has no {RECORD}, so there is no distillation to go on with; begin one without --resume."
        ) from None
    except (ValidationError, UnicodeDecodeError):
        raise ValueError(f"{out / RECORD}: is not what distilling writes; restore it, or distil anew.") from None


def _check_same(out: Path, then: Record, now: Record) -> None:
    """Raises ValueError when what is in `out` was begun otherwise."""
    differences = {
        f"by another teacher ({then.teacher})": then.weights != now.weights,
        "with other pairs, or other ones set aside": then.sources != now.sources,
        f"with a beam of {then.beam_size}, not {now.beam_size}": then.beam_size != now.beam_size,
        f"{'with' if then.keep_true else 'without'} the true pairs (--keep-true)": then.keep_true != now.keep_true,
    }
    for what, differs in differences.items():
        if differs:
            raise ValueError(f"{out / RECORD}: was begun {what}; go on as it was begun, or choose another folder.")


def _split(
    pairs: str | Path | Sequence[Pair], dev: str | Path | Sequence[Pair] | None, config: Config
) -> tuple[Collection[Pair], Sequence[Pair]]:
    """(those whose sources are decoded, those to measure on)."""
    found = given_pairs(pairs)
    return split_pairs(found, config.training.dev_pairs) if dev is None else (found, given_pairs(dev))


def _distinct(pairs: Collection[Pair]) -> tuple[ChosenPairs, list[int], str]:
    """The first pair of each source, in order; how many pairs each source has; and a hash of the sources."""
    hashes = np.fromiter(map(_hash_source, pairs), dtype=np.uint64, count=len(pairs))
    first = np.zeros(len(pairs), dtype=np.bool_)
    _, places, counts = np.unique(hashes, return_index=True, return_counts=True)
    first[places] = True
    fingerprint = blake2b(hashes[first].tobytes(), digest_size=16).hexdigest()
    return ChosenPairs(pairs, first), counts[places.argsort()].tolist(), fingerprint


def _hash_source(pair: Pair) -> int:
    return int.from_bytes(blake2b(pair.source.encode(), digest_size=8).digest(), "big")


def _hash_weights(model: Model) -> str:
    """Of the output weights, which every update changes, and which are the same in all precisions."""
    digest = blake2b(digest_size=16)
    for member in model.members:
        digest.update(member.output.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _decode(
    teacher: Model,
    sources: Collection[Pair],
    file: Path,
    beam_size: int,
    listener: Listener | None,
    wanted: Callable[[], bool],
) -> bool:
    """Writes the teacher's output for each source into the file, from where it ends; whether it came to the end."""
    with _Journal(file, (pair.source for pair in sources)) as journal:
        if listener:
            listener.decoded(journal.done, len(sources), journal.num_empty)
        remaining = islice((pair.source for pair in sources), journal.num_settled, None)
        while chunk := list(islice(remaining, CHUNK)):
            waiting = [source for source in chunk if source not in journal.unsettled]
            for source, output in _answers(teacher, waiting, beam_size):
                journal.add(source, output)
                if listener:
                    listener.decoded(journal.done, len(sources), journal.num_empty)
                if not wanted():
                    return False
            journal.settle(chunk)
    return True


def _answers(teacher: Model, sources: Sequence[str], beam_size: int) -> Iterator[tuple[str, str]]:
    """(a source, the teacher's output), as each ends; empty for a source that is too long for it to read."""
    limit = LONGEST * teacher.config.training.max_length
    readable = [len(teacher.source_ids(source)) - 1 <= limit for source in sources]
    yield from ((source, "") for source, can_read in zip(sources, readable, strict=True) if not can_read)
    chosen = list(compress(sources, readable))
    for index, outputs in teacher.stream(chosen, beam_size=beam_size, n_best=1, sample=False):
        yield chosen[index], outputs[0].text


class _Journal:
    """The file of decoded pairs while it is written.

    Pairs are settled when they stand in the order of their sources, so that it does not tell where it was interrupted;
    behind them stand those of the chunk under way, as they came. A last line that was cut is dropped.
    """

    def __init__(self, path: Path, sources: Iterable[str]) -> None:
        """sources: all there are, in order. Raises ValueError for a line that is no pair."""
        self.num_settled = self.num_empty = self._settled_bytes = 0
        self.unsettled: dict[str, str] = {}
        self._file = path.open("a+b")
        try:
            self._read(path, iter(sources))
        except BaseException:
            self._file.close()
            raise

    def _read(self, path: Path, expected: Iterator[str]) -> None:
        whole = 0
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            pair = _read_pair(line, f"{path}, line {number}")
            self.num_empty += not pair.target.strip()
            if not self.unsettled and pair.source == next(expected, None):
                self.num_settled, self._settled_bytes = number, whole
            else:
                self.unsettled[pair.source] = pair.target
        self._file.truncate(whole)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def done(self) -> int:
        return self.num_settled + len(self.unsettled)

    def add(self, source: str, target: str) -> None:
        self.unsettled[source] = target
        self.num_empty += not target.strip()
        self._file.write(_line(source, target))
        self._file.flush()

    def settle(self, sources: Sequence[str]) -> None:
        """All of these are decoded: their pairs are put in this order."""
        lines = b"".join(_line(source, self.unsettled.pop(source)) for source in sources)
        self._file.truncate(self._settled_bytes)
        self._file.write(lines)
        self._file.flush()
        self.num_settled += len(sources)
        self._settled_bytes += len(lines)


def _line(source: str, target: str) -> bytes:
    return json.dumps({"source": source, "target": target}, ensure_ascii=False).encode() + b"\n"


def _read_pair(line: bytes, place: str) -> Pair:
    try:
        pair = Pair(**json.loads(line))
        "".join(pair)  # a TypeError for what is no text
    except (ValueError, TypeError):
        raise ValueError(
            f"{place}: is no pair that distilling wrote; remove the line, and its source will be decoded again."
        ) from None
    return pair
