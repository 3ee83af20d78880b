"""`antiphon.pipeline`: a trained model called as Hugging Face's seq2seq pipelines were, up to transformers 4.

For `pipeline("translation")`, `pipeline("summarization")` and `pipeline("text2text-generation")`, which transformers 5
no longer has: the same call, the same names of options, the same shapes of results. An option is taken where it means
the same here; any other is refused in a sentence, never dropped. This file decodes nothing itself.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any, get_args

import torch

from antiphon.config import GenerationConfig, generation_settings
from antiphon.decoding.generate import decode
from antiphon.decoding.search import Hypothesis, make_search
from antiphon.ids import BOS, EOS
from antiphon.run import Model, load
from antiphon.segments import How, split

Record = dict[str, Any]  # one output, e.g. {"translation_text": "..."}

# The word that the keys of a task's results begin with.
TASKS = {"translation": "translation", "summarization": "summary", "text2text-generation": "generated"}
_TRANSLATION = re.compile(r"translation_([^_]+)_to_([^_]+)")

# Their name of a setting, and ours.
_SETTINGS = {
    "num_beams": "beam_size",
    "num_return_sequences": "n_best",
    "length_penalty": "length_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "do_sample": "sample",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "seed": "seed",
}
_LENGTHS = ("max_length", "max_new_tokens", "min_length", "min_new_tokens")
_OUTPUT = ("return_tensors", "return_text", "clean_up_tokenization_spaces")
_INPUT = ("batch_size", "split", "src_lang", "tgt_lang", "truncation", "early_stopping")
OPTIONS = (*_SETTINGS, *_LENGTHS, *_OUTPUT, *_INPUT)

_NEUTRAL = {"temperature": 1, "top_k": 0, "top_p": 1}  # for a search without sampling

_REFUSED = {
    "tokenizer": "a trained model has its own; leave it out",
    "return_type": "give return_tensors=True or leave it out",
    "torch_dtype": "give a model that is loaded: antiphon.load(folder, precision=...)",
    "dtype": "give a model that is loaded: antiphon.load(folder, precision=...)",
    "device_map": "give device",
    "framework": "there is one only; leave it out",
    "num_workers": "give a model that is loaded: antiphon.load(folder, workers=...)",
}

_SPACES = {
    " .": ".",
    " ?": "?",
    " !": "!",
    " ,": ",",
    " ' ": "'",
    " n't": "n't",
    " 'm": "'m",
    " 's": "'s",
    " 've": "'ve",
    " 're": "'re",
}


def pipeline(
    task: str, model: str | Path | Model, device: str | int | torch.device | None = None, **options: Any
) -> "Pipeline":
    """A model to call with texts: `pipeline("translation", model="runs/mine")("A text.")`.

    task: "translation" (or "translation_en_to_fr"), "summarization" or "text2text-generation"; it names the keys of
    the results. model: a run folder, or a loaded model. device: as for `antiphon.load`, or a number: that GPU, or below
    0 the processor. options: those of the calls, for all of them.

    Hugging Face's name        here
    num_beams                  beam_size
    num_return_sequences       n_best
    max_new_tokens             max_length
    max_length                 max_length + 1: it counts the GO that an output begins with
    min_new_tokens             min_length
    min_length                 min_length + 1, as above
    do_sample                  sample; the same draw at each call until `seed` is another
    temperature, top_k, top_p  the same, for do_sample only; top_k is not 50 by itself
    no_repeat_ngram_size       no_repeat_ngram
    length_penalty             the same
    early_stopping             True is what is done: a search ends when num_beams outputs have ended
    truncation                 False is what is done: text that is too long is refused
    src_lang                   the language that text is split in; "en", or that of the task
    tgt_lang                   of a model trained on fr=FILE+de=FILE (or en-fr=FILE), the tag that is put before a text;
                               or that of the task

    and new are seed (of do_sample) and split="sentence": a text is answered sentence by sentence, its layout kept.
    What is not given is the model's own setting. Raises ValueError for a task, model, device or option that cannot be.
    """
    translation = _TRANSLATION.fullmatch(task)
    if not translation and task not in TASKS:
        known = ", ".join(TASKS)
        raise ValueError(
            f"task {task!r} is not known{_nearest(task, [*TASKS, 'translation_en_to_fr'])}; there are {known}, and "
            "translation_en_to_fr for any two languages."
        )
    _check_names(options)
    loaded = _loaded(model, device)
    languages = {"src_lang": translation[1] if translation else "en"}
    if translation and _find_tag(translation[1], translation[2], loaded.facts.tags):
        languages["tgt_lang"] = translation[2]
    return Pipeline(
        task=task,
        model=loaded,
        key="translation" if translation else TASKS[task],
        options=languages | _given(options),
    )


def _loaded(model: str | Path | Model, device: str | int | torch.device | None) -> Model:
    if not isinstance(model, Model):
        if isinstance(device, int):
            device = "cpu" if device < 0 else f"cuda:{device}"
        return load(model, "cpu" if device is None else str(device))
    if device is not None:
        raise ValueError(
            f"device is {device!r}, but the model is loaded already; load it there: antiphon.load(folder, device=...)."
        )
    return model


@dataclass(frozen=True)
class _Request:
    """What the options of a call ask for."""

    settings: GenerationConfig
    with_text: bool
    with_ids: bool
    clean_up: bool
    batch_size: int | None
    split: How
    language: str
    tag: str


@dataclass(frozen=True)
class Pipeline:
    """A model, called with texts. key: what the names in its results begin with; options: for all calls."""

    task: str
    model: Model
    key: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """A text -> its outputs, a list of records. Texts -> a list with one record each, or one list of them each.

        A record is {"translation_text": "..."} or what the task is called; with return_tensors=True it is
        {"translation_token_ids": tensor}, from GO on and with EOS; with return_text=True beside it, both. An output
        list has num_return_sequences records; when all have one, a list of texts gives a list of records.

        A generator, a dataset or any other iterable of texts is read batch_size (1) at a time, and gives an iterator
        of output lists. A list is decoded all at once, or batch_size at a time. split="sentence": the i-th output is
        made of the i-th best of each sentence. Raises ValueError, also for text over the longest that the model was
        trained with.
        """
        _check_names(options)
        request = _request(_given({**self.options, **options}), self.model.config.generation, self.model.facts.tags)
        if isinstance(inputs, str):
            return self._answer([inputs], request)[0]
        if not isinstance(inputs, list | tuple):
            return self._stream(_iterated(inputs), request, request.batch_size or 1)
        found = list(self._stream(inputs, request, request.batch_size or max(1, len(inputs))))
        if all(len(records) == 1 for records in found):
            return [record for [record] in found]
        return found

    def _stream(self, texts: Iterable[Any], request: _Request, size: int) -> Iterator[list[Record]]:
        """The records of each text, as they are read, `size` at a time."""
        waiting = iter(texts)
        for start in count(0, size):
            batch = list(islice(waiting, size))
            if not batch:
                return
            yield from self._answer(batch, request, start)

    def _answer(self, texts: Sequence[Any], request: _Request, start: int = 0) -> list[list[Record]]:
        """The records of each text. start: the number of the first, for errors."""
        for index, text in enumerate(texts, start):
            if not isinstance(text, str):
                raise ValueError(_not_a_text(index, text))
        if request.tag:
            texts = [f"{request.tag} {text}" if text.strip() else text for text in texts]
        if request.with_ids:
            found = self._hypotheses(texts, request.settings, start)
            return [[self._record(request, self.model.output(one).text, one) for one in group] for group in found]
        answers = self._whole(texts, request, start) if request.split == "none" else self._split(texts, request, start)
        return [[self._record(request, text) for text in group] for group in answers]

    def _record(self, request: _Request, text: str, hypothesis: Hypothesis | None = None) -> Record:
        record: Record = {}
        if request.with_text:
            record[f"{self.key}_text"] = _cleaned(text) if request.clean_up else text
        if hypothesis is not None:
            record[f"{self.key}_token_ids"] = torch.tensor([BOS, *hypothesis.tokens])
        return record

    def _whole(self, texts: Sequence[str], request: _Request, start: int) -> list[list[str]]:
        """The answers to each text. A blank one has as many as the others."""
        for index, text in enumerate(texts, start):
            self._check_length(index, text, "split it, or give split='sentence'")
        found = self.model.outputs(texts, **request.settings.model_dump())
        answers = [[output.text for output in outputs] for outputs in found]
        copies = request.settings.n_best
        return [group if text.strip() else group * copies for text, group in zip(texts, answers, strict=True)]

    def _split(self, texts: Sequence[str], request: _Request, start: int) -> list[list[str]]:
        """The answers to each text, put together from those to its sentences."""
        tags = self.model.facts.tags
        parts = [split(text, request.split, request.language, tags=tags) for text in texts]
        for index, part in enumerate(parts, start):
            for sentence in part.sources:
                self._check_length(index, sentence, "split this sentence")
        sentences = [sentence for part in parts for sentence in part.sources]
        found = iter(self.model.outputs(sentences, **request.settings.model_dump()))
        answers = []
        for part in parts:
            own = list(islice(found, len(part.sentences)))
            places = range(request.settings.n_best)
            answers.append([part.join([some[min(place, len(some) - 1)].text for some in own]) for place in places])
        return answers

    def _hypotheses(self, texts: Sequence[str], settings: GenerationConfig, start: int) -> list[list[Hypothesis]]:
        """As `_whole`, but with token ids."""
        for index, text in enumerate(texts, start):
            self._check_length(index, text, "split it")
        sources = [self.model.source_ids(text) for text in texts if text.strip()]
        searches = [make_search(settings, self.model.max_length(len(source), settings)) for source in sources]
        found = iter(decode(self.model.predictor, sources, searches))
        blank = [Hypothesis((EOS,))] * settings.n_best
        return [next(found) if text.strip() else blank for text in texts]

    def _check_length(self, index: int, text: str, advice: str) -> None:
        limit, length = self.model.config.training.max_length, len(self.model.source_ids(text)) - 1
        if length > limit:
            raise ValueError(f"input {index}: at most {limit} tokens, found {length} in {text[:40]!r}...; {advice}.")


def _iterated(inputs: Any) -> Iterator[Any]:
    """What an iterable or a dataset holds. Raises ValueError for anything else."""
    if hasattr(inputs, "__iter__") and not isinstance(inputs, Mapping | bytes):
        return iter(inputs)
    if hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__") and not isinstance(inputs, Mapping | bytes):
        return (inputs[index] for index in range(len(inputs)))
    raise ValueError(f"inputs: expected a text, or a list or another iterable of texts, found {_kind(inputs)}.")


def _not_a_text(index: int, found: Any) -> str:
    if isinstance(found, Mapping):
        return f"input {index}: expected a text, found {_kind(found)}; give its column of texts alone."
    return f"input {index}: expected a text, found {_kind(found)}."


def _kind(value: Any) -> str:
    return f"{value!r:.40} ({type(value).__name__})"


def _cleaned(text: str) -> str:
    """Without the spaces that tokenizers leave before punctuation marks, as Hugging Face's libraries do it."""
    for spaced, close in _SPACES.items():
        text = text.replace(spaced, close)
    return text


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that say something: None is as if left out."""
    return {name: value for name, value in options.items() if value is not None}


def _check_names(options: Mapping[str, Any]) -> None:
    """Raises ValueError for an option that is not known."""
    theirs = {ours: name for name, ours in _SETTINGS.items()}
    for name in options:
        if name in OPTIONS:
            continue
        if name in _REFUSED:
            raise ValueError(f"option {name!r} is not for this pipeline: {_REFUSED[name]}.")
        if name in theirs:
            raise ValueError(f"option {name!r} is called {theirs[name]!r} in a pipeline.")
        raise ValueError(f"option {name!r} is not known{_nearest(name, OPTIONS)}; there are {', '.join(OPTIONS)}.")


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _request(options: Mapping[str, Any], base: GenerationConfig, tags: Sequence[str]) -> _Request:
    """The options of a call over the model's own settings; tags: of the model. Raises ValueError for one that cannot
    be."""
    if options.get("early_stopping", True) is not True:
        raise ValueError(
            f"option 'early_stopping' is {options['early_stopping']!r}; a search here ends when num_beams outputs have "
            "ended or none can still win, which is nearest to True: give True, or leave it out."
        )
    if options.get("truncation", False) not in (False, "do_not_truncate"):
        raise ValueError(
            f"option 'truncation' is {options['truncation']!r}, but no text is cut here; leave it out, and give texts "
            "that are short enough, or split='sentence'."
        )
    with_ids = _flag(options, "return_tensors", False)
    request = _Request(
        settings=_settings(options, base),
        with_text=_flag(options, "return_text", not with_ids),
        with_ids=with_ids,
        clean_up=_flag(options, "clean_up_tokenization_spaces", False),
        batch_size=_whole_number(options, "batch_size", 1),
        split=options.get("split", "none"),
        language=options.get("src_lang", "en"),
        tag=_tag(options, tags),
    )
    if request.split not in get_args(How):
        raise ValueError(f"option 'split' is {request.split!r}; it can be {' or '.join(get_args(How))}.")
    if not isinstance(request.language, str):
        raise ValueError(f"option 'src_lang' is {request.language!r}; give the code of a language, such as 'en'.")
    if not (request.with_text or with_ids):
        raise ValueError("option 'return_text' is False, so nothing is left; give return_tensors=True beside it.")
    if with_ids and request.split != "none":
        raise ValueError("option 'return_tensors': a text that is split has no token ids of its own; leave one out.")
    return request


def _tag(options: Mapping[str, Any], tags: Sequence[str]) -> str:
    """What a text shall begin with. Raises ValueError where the model was not trained with it."""
    target = options.get("tgt_lang")
    if target is None:
        return ""
    if found := _find_tag(options.get("src_lang"), target, tags):
        return found
    there = f"there are {', '.join(tags)}" if tags else "it has none, and answers as its targets were; leave it out"
    raise ValueError(f"option 'tgt_lang' is {target!r}, and the model was trained with no such tag; {there}.")


def _find_tag(source: object, target: object, tags: Sequence[str]) -> str | None:
    """The tag of a target language, or of a pair."""
    return next((tag for tag in tags if tag in (target, f"{source}-{target}")), None)


def _settings(options: Mapping[str, Any], base: GenerationConfig) -> GenerationConfig:
    values = {ours: options[theirs] for theirs, ours in _SETTINGS.items() if theirs in options}
    lengths = _lengths(options)
    try:
        found = generation_settings(base, **values, **lengths)
    except ValueError as error:
        message = str(error).removeprefix("generation settings: ")
        for theirs, ours in _SETTINGS.items():
            message = re.sub(rf"\b{ours}\b", theirs, message)
        raise ValueError(f"options: {message}") from None
    if found.sample and options.get("num_beams", 1) != 1:
        raise ValueError("option 'num_beams': samples are not drawn from beams here; leave out num_beams or do_sample.")
    for name, neutral in _NEUTRAL.items():
        if not found.sample and options.get(name, neutral) != neutral:
            raise ValueError(f"option {name!r} is for samples only; add do_sample=True, or leave it out.")
    return found


def _lengths(options: Mapping[str, Any]) -> dict[str, int]:
    """Our lengths for theirs, of which max_length and min_length count the GO that an output begins with."""
    found: dict[str, int] = {}
    for side, lowest in (("max", 1), ("min", 0)):
        counting_go, new = f"{side}_length", f"{side}_new_tokens"
        if counting_go in options and new in options:
            raise ValueError(f"options {counting_go!r} and {new!r} say the same twice; give {new} alone.")
        given = _whole_number(options, counting_go, 2 * lowest)
        length = _whole_number(options, new, lowest) if given is None else max(0, given - 1)
        if length is not None:
            found[f"{side}_length"] = length
    if found.get("min_length", 0) > found.get("max_length", found.get("min_length", 0)):
        raise ValueError(
            f"options: an output of at least {found['min_length']} tokens cannot be one of at most "
            f"{found['max_length']}, not counting GO; change one of the lengths."
        )
    return found


def _flag(options: Mapping[str, Any], name: str, default: bool) -> bool:
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"option {name!r} is {value!r}; it can be True or False.")
    return value


def _whole_number(options: Mapping[str, Any], name: str, lowest: int) -> int | None:
    """An option that is a number, at least `lowest`; None where it is not given."""
    value = options.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < lowest):
        raise ValueError(f"option {name!r} is {value!r}; it can be a whole number from {lowest} on.")
    return value
