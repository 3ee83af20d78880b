"""Calls that were written for Hugging Face's pipelines: results of the same names and shapes, from a model of ours."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from letters import train_letters
from test_convert import SOURCES, random_model

import antiphon
from antiphon import pipelines
from antiphon.convert import huggingface
from antiphon.ids import BOS, EOS
from antiphon.run import Model

TEXTS = ["ab 01", "ab 02 ab 03", "ab"]
SHAPE = ["model.d_model=16", "model.d_ff=16", "model.num_heads=2", "model.positions=sinusoidal"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_letters(tmp_path_factory.mktemp("pipelines") / "run", *SHAPE, "tokenizer.joint=true")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return antiphon.load(folder, precision="float32")


def outputs(model: Model, text: str, **settings: Any) -> list[dict[str, str]]:
    return [{"translation_text": output.text} for output in model.outputs([text], **settings)[0]]


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("translation", "translation_text"),
        ("translation_en_to_fr", "translation_text"),
        ("summarization", "summary_text"),
        ("text2text-generation", "generated_text"),
    ],
)
def test_each_task_has_its_key(task: str, key: str, model: Model) -> None:
    [[record]] = [antiphon.pipeline(task, model=model)(TEXTS[0])]
    assert record == {key: model.generate([TEXTS[0]])[0]}


@pytest.mark.parametrize("device", [None, "cpu", -1, torch.device("cpu")])
def test_a_folder_is_loaded(device: Any, folder: Path) -> None:
    pipe = antiphon.pipeline("translation", str(folder), device=device)
    assert isinstance(pipe.model, Model)
    assert pipe.model.network.device == torch.device("cpu")
    assert pipe.task == "translation"
    assert len(pipe(TEXTS)) == 3


def test_a_number_is_that_gpu(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"'cuda:99' cannot be had"):
        antiphon.pipeline("translation", folder, device=99)


def test_shapes_are_those_of_hugging_face(model: Model) -> None:
    pipe = antiphon.pipeline("translation", model)
    one = [outputs(model, text) for text in TEXTS]
    two = [outputs(model, text, beam_size=3, n_best=2) for text in TEXTS]
    beams = {"num_beams": 3, "num_return_sequences": 2}
    assert [len(group) for group in two] == [2, 2, 2]
    assert pipe(TEXTS[0]) == one[0]
    assert pipe(TEXTS) == [record for [record] in one]
    assert pipe(TEXTS[:1]) == one[0]
    assert pipe(tuple(TEXTS)) == pipe(TEXTS)
    assert pipe([]) == []
    assert pipe(TEXTS[0], **beams) == two[0]
    assert pipe(TEXTS, **beams) == two
    assert list(pipe(iter(TEXTS))) == one
    assert list(pipe((text for text in TEXTS), **beams)) == two


def test_a_blank_text_has_as_many_outputs_as_others(model: Model) -> None:
    pipe = antiphon.pipeline("translation", model, num_beams=2, num_return_sequences=2)
    blank = {"translation_text": ""}
    assert pipe(["", TEXTS[0], "  "])[::2] == [[blank, blank], [blank, blank]]
    assert [record["translation_token_ids"].tolist() for record in pipe(" ", return_tensors=True)] == [[BOS, EOS]] * 2


class Rows(torch.utils.data.Dataset[str]):
    """Texts as a dataset that knows no end of its own."""

    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, index: int) -> str:
        return TEXTS[index % len(TEXTS)]


def test_a_dataset_is_read_by_its_length(model: Model) -> None:
    found = antiphon.pipeline("translation", model)(Rows())
    assert isinstance(found, Iterator)
    assert list(found) == [outputs(model, text) for text in TEXTS]


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_a_generator_is_read_as_its_outputs_are(batch_size: int | None, model: Model) -> None:
    read = []

    def texts() -> Iterator[str]:
        for text in TEXTS:
            read.append(text)
            yield text

    found = antiphon.pipeline("translation", model)(texts(), batch_size=batch_size)
    assert read == []
    assert next(found) == outputs(model, TEXTS[0])
    assert len(read) == (batch_size or 1)
    assert len(list(found)) == len(TEXTS) - 1


def test_an_option_that_is_wrong_is_told_before_a_generator_is_read(model: Model) -> None:
    with pytest.raises(ValueError, match="num_beams"):
        antiphon.pipeline("translation", model)(iter(TEXTS), num_beams=0)


@pytest.mark.parametrize("batch_size", [1, 2, 9])
def test_the_size_of_a_batch_changes_nothing(batch_size: int, model: Model) -> None:
    pipe = antiphon.pipeline("translation", model, num_beams=2)
    assert pipe(TEXTS, batch_size=batch_size) == pipe(TEXTS)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"num_beams": 3, "length_penalty": 0.5, "early_stopping": True}, {"beam_size": 3, "length_penalty": 0.5}),
        ({"max_new_tokens": 3}, {"max_length": 3}),
        ({"max_length": 4}, {"max_length": 3}),
        ({"min_new_tokens": 5, "max_new_tokens": 6}, {"min_length": 5, "max_length": 6}),
        ({"min_length": 6, "max_length": 7}, {"min_length": 5, "max_length": 6}),
        ({"min_length": 0}, {}),
        ({"no_repeat_ngram_size": 1, "max_new_tokens": 9}, {"no_repeat_ngram": 1, "max_length": 9}),
        (
            {"do_sample": True, "temperature": 1.5, "top_k": 5, "top_p": 0.9, "seed": 3, "num_return_sequences": 3},
            {"sample": True, "temperature": 1.5, "top_k": 5, "top_p": 0.9, "seed": 3, "n_best": 3},
        ),
        ({"truncation": False, "top_p": 1.0, "temperature": 1.0, "top_k": None, "max_length": None}, {}),
    ],
)
def test_their_options_are_our_settings(theirs: dict[str, Any], ours: dict[str, Any], model: Model) -> None:
    expected = outputs(model, TEXTS[1], **ours)
    assert antiphon.pipeline("translation", model)(TEXTS[1], **theirs) == expected
    assert antiphon.pipeline("translation", model, **theirs)(TEXTS[1]) == expected


def test_options_of_a_call_go_over_those_of_the_pipeline(model: Model) -> None:
    pipe = antiphon.pipeline("translation", model, max_new_tokens=2)
    assert pipe(TEXTS[1], max_new_tokens=3) == outputs(model, TEXTS[1], max_length=3)
    assert pipe(TEXTS[1], max_new_tokens=None) == outputs(model, TEXTS[1])


@pytest.mark.parametrize("num_beams", [1, 3])
def test_token_ids_are_those_that_hugging_face_generates(num_beams: int, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ending = random_model(positions="sinusoidal")
    huggingface.export(ending, tmp_path / "exported")
    network = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "exported").eval()
    network.generation_config.max_new_tokens = network.generation_config.min_new_tokens = None
    pipe = antiphon.pipeline("translation", ending, return_tensors=True, num_beams=num_beams, early_stopping=True)
    lengths = set()
    for text in SOURCES:
        source = torch.tensor([ending.source_ids(text)])
        for length in (5, 9, 12):
            for options in (
                {"max_length": length},
                {"max_new_tokens": length},
                {"max_length": 12, "min_length": length},
                {"max_new_tokens": 12, "min_new_tokens": length, "no_repeat_ngram_size": 2},
            ):
                [record] = pipe(text, **options)
                [row] = network.generate(source, do_sample=False, num_beams=num_beams, early_stopping=True, **options)
                assert record["translation_token_ids"].tolist() == row.tolist(), (text, options)
                lengths.add(len(row))
    assert len(lengths) > 4


def test_tensors_are_the_tokens_of_the_text(model: Model) -> None:
    pipe = antiphon.pipeline("translation", model, num_beams=2, num_return_sequences=2, return_tensors=True)
    assert [set(record) for record in pipe(TEXTS[1])] == [{"translation_token_ids"}] * 2
    both = pipe(TEXTS, return_text=True)
    for text, group in zip(TEXTS, both, strict=True):
        assert [{"translation_text": record["translation_text"]} for record in group] == outputs(
            model, text, beam_size=2, n_best=2
        )
        for record in group:
            ids = record["translation_token_ids"]
            assert ids.dtype == torch.int64
            assert ids[0] == BOS
            assert model.tokenizers.target.decode(ids.tolist()) == record["translation_text"]


def answering(model: Model, monkeypatch: pytest.MonkeyPatch, answer: Any) -> pipelines.Pipeline:
    """A pipeline whose model gives to each text `answer(text, place)`, for each place among the n best."""

    def found(texts: list[str], *, n_best: int, **settings: Any) -> list[list[Any]]:
        return [[antiphon.Output(answer(text, place), 0.0, [], [], True) for place in range(n_best)] for text in texts]

    monkeypatch.setattr(model, "outputs", found)
    return antiphon.pipeline("translation_de_to_en", model)


def test_spaces_are_cleaned_up_where_asked_for(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = "I do n't , he 's ' ok ' so . We 've ! You 're ? I 'm"
    pipe = answering(model, monkeypatch, lambda text, place: raw)
    assert pipe("ab") == pipe("ab", clean_up_tokenization_spaces=False) == [{"translation_text": raw}]
    assert pipe("ab", clean_up_tokenization_spaces=True) == [
        {"translation_text": "I don't, he's'ok'so. We've! You're? I'm"}
    ]


def test_a_split_text_is_answered_by_sentence_with_its_layout(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = answering(model, monkeypatch, lambda text, place: f"<{text}>{place}")
    text = " Am 3. Mai. Ja!\n\n- Nein.\r\n"
    assert pipe(" Ja! Ja!\n") == [{"translation_text": "< Ja! Ja!\n>0"}]
    assert pipe(text, split="sentence") == [{"translation_text": " <Am 3. Mai.>0 <Ja!>0\n\n- <Nein.>0\r\n"}]
    assert pipe([text, "", "Ja."], split="sentence", num_beams=2, num_return_sequences=2)[1:] == [
        [{"translation_text": ""}] * 2,
        [{"translation_text": "<Ja.>0"}, {"translation_text": "<Ja.>1"}],
    ]
    assert "<Am 3.>0 <Mai.>0" in pipe(text, split="sentence", src_lang="en")[0]["translation_text"]


def test_a_tag_is_put_before_each_sentence(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = answering(model, monkeypatch, lambda text, place: f"<{text}>")
    monkeypatch.setattr(model.side, "facts", replace(model.facts, tags=["fr"]))
    assert pipe("fr Yes. No!\n", split="sentence") == [{"translation_text": "<fr Yes.> <fr No!>\n"}]


def test_a_target_language_is_the_tag_before_each_text(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = answering(model, monkeypatch, lambda text, place: f"<{text}>")
    monkeypatch.setattr(model.side, "facts", replace(model.facts, tags=["fr", "de-fr"]))
    assert pipe(["Yes. No!", " "], tgt_lang="fr") == [
        {"translation_text": "<fr Yes. No!>"},
        {"translation_text": "< >"},
    ]
    assert pipe("Yes. No!", tgt_lang="fr", split="sentence") == [{"translation_text": "<fr Yes.> <fr No!>"}]
    assert antiphon.pipeline("translation_en_to_fr", model)("No!") == [{"translation_text": "<fr No!>"}]
    monkeypatch.setattr(model.side, "facts", replace(model.facts, tags=["en-fr", "fr-en"]))
    assert antiphon.pipeline("translation_fr_to_en", model)("Non.") == [{"translation_text": "<fr-en Non.>"}]
    assert antiphon.pipeline("translation_fr_to_es", model)("Non.") == [{"translation_text": "<Non.>"}]
    with pytest.raises(ValueError, match=r"'tgt_lang' is 'es'.* there are en-fr, fr-en\.$"):
        pipe("No!", tgt_lang="es")
    monkeypatch.setattr(model.side, "facts", replace(model.facts, tags=[]))
    with pytest.raises(ValueError, match="leave it out"):
        pipe("No!", tgt_lang="fr")


def test_a_long_text_is_answered_by_sentence_in_truth(model: Model) -> None:
    pipe = antiphon.pipeline("translation", model, split="sentence")
    text = "ab 01.\nab 02. " * 20
    [found] = pipe(text, num_beams=2)
    first, second = model.generate(["ab 01.", "ab 02."], beam_size=2)
    assert found["translation_text"] == f"{first}\n{second} " * 20


@pytest.mark.parametrize("options", [{}, {"return_tensors": True}])
def test_a_text_that_is_too_long_is_refused_with_its_number(options: dict[str, Any], model: Model) -> None:
    pipe = antiphon.pipeline("translation", model)
    with pytest.raises(ValueError, match=r"input 1: at most 20 tokens, found \d+ in 'ab 99 .*; split it.*\.$"):
        pipe(["ab", "ab 99 " * 20], **options)
    found = pipe(iter(["ab", "ab", "ab 99 " * 20]), batch_size=2, **options)
    assert len([next(found), next(found)]) == 2
    with pytest.raises(ValueError, match="input 2: at most 20"):
        next(found)


def test_a_sentence_that_is_too_long_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match=r"input 0: at most 20 .*; split this sentence\.$"):
        antiphon.pipeline("translation", model)("One. " + "ab 99 " * 20, split="sentence")


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("text-generation", "did you mean 'text2text-generation'"),
        ("translation_en_fr", "did you mean 'translation_en_to_fr'"),
        ("translate", "did you mean 'translation'"),
        ("", "there are translation, summarization, text2text-generation"),
    ],
)
def test_another_task_is_refused_and_the_nearest_named(task: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        antiphon.pipeline(task, model="nowhere")


def test_a_folder_without_a_model_is_told() -> None:
    with pytest.raises(ValueError, match="nowhere: there is no such folder"):
        antiphon.pipeline("translation", model="nowhere")


def test_a_loaded_model_has_its_device(model: Model) -> None:
    with pytest.raises(ValueError, match="the model is loaded already"):
        antiphon.pipeline("translation", model, device="cpu")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_beam": 3}, "option 'num_beam' is not known (did you mean 'num_beams'?)"),
        ({"zzz": 3}, "option 'zzz' is not known; there are num_beams,"),
        ({"beam_size": 3}, "option 'beam_size' is called 'num_beams'"),
        ({"tokenizer": "x"}, "a trained model has its own"),
        ({"return_type": "pt"}, "give return_tensors=True"),
    ],
)
def test_an_option_that_is_not_known_is_refused(options: dict[str, Any], told: str, model: Model) -> None:
    for call in (lambda: antiphon.pipeline("translation", model, **options), lambda: _call(model, options)):
        with pytest.raises(ValueError, match=r"\.$") as caught:
            call()
        assert told in str(caught.value)


def _call(model: Model, options: dict[str, Any]) -> Any:
    return antiphon.pipeline("translation", model)("ab", **options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_beams": 0}, "setting 'num_beams' is 0"),
        ({"num_return_sequences": 3}, "num_return_sequences (3) is larger than num_beams (1)"),
        ({"max_length": 1}, "'max_length' is 1; it can be a whole number from 2 on"),
        ({"max_new_tokens": 0}, "from 1 on"),
        ({"max_new_tokens": 2.5}, "from 1 on"),
        ({"min_length": -1}, "from 0 on"),
        ({"max_length": 5, "max_new_tokens": 4}, "say the same twice"),
        ({"min_length": 6, "max_new_tokens": 4}, "at least 5 tokens cannot be one of at most 4"),
        ({"early_stopping": False}, "nearest to True"),
        ({"early_stopping": "never"}, "nearest to True"),
        ({"truncation": True}, "no text is cut here"),
        ({"temperature": 0.7}, "add do_sample=True"),
        ({"do_sample": True, "temperature": 0}, "setting 'temperature' is 0"),
        ({"do_sample": True, "num_beams": 2}, "not drawn from beams"),
        ({"return_text": False}, "nothing is left"),
        ({"return_tensors": 1}, "it can be True or False"),
        ({"return_tensors": True, "split": "sentence"}, "leave one out"),
        ({"split": "words"}, "it can be none or sentence"),
        ({"batch_size": 0}, "from 1 on"),
        ({"src_lang": 3}, "the code of a language"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, Any], told: str, model: Model) -> None:
    with pytest.raises(ValueError, match=r"\.$") as caught:
        _call(model, options)
    assert told in str(caught.value)
    assert "options: options:" not in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (3, "inputs: expected a text, or a list or another iterable of texts, found 3 (int)"),
        (None, "found None (NoneType)"),
        (b"ab", "found b'ab' (bytes)"),
        ({"text": "ab"}, "(dict)"),
        (["ab", 3], "input 1: expected a text, found 3 (int)"),
        ([{"text": "ab"}], "give its column of texts alone"),
        ([["ab"]], "input 0: expected a text, found ['ab'] (list)"),
    ],
)
def test_what_is_no_text_is_refused(inputs: Any, told: str, model: Model) -> None:
    with pytest.raises(ValueError, match=r"\.$") as caught:
        antiphon.pipeline("translation", model)(inputs)
    assert told in str(caught.value)
