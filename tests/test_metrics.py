"""The metrics against hand-made counts and against sacreBLEU itself."""

import logging
from typing import get_args

import pytest
import sacrebleu

from antiphon import metrics
from antiphon.config import MetricName

ENGLISH = ["the cat sat on the mat .", "a dog barked at the old postman", "nobody knows why it rains"]
OTHER = ["a cat sat on the mat .", "the dog barked at an old postman", "no one knows why it rains"]


@pytest.mark.parametrize("name", ["bleu", "char_bleu", "chrf", "exact_match"])
def test_identical_outputs_score_100(name: str) -> None:
    assert metrics.compute(name, ENGLISH, [[line] for line in ENGLISH]) == pytest.approx(100)


@pytest.mark.parametrize("name", ["wer", "per", "ter"])
def test_identical_outputs_have_no_errors(name: str) -> None:
    assert metrics.compute(name, ENGLISH, [[line] for line in ENGLISH]) == 0


def test_bleu_and_chrf_are_sacrebleu_s() -> None:
    references = [[line] for line in OTHER]
    bleu, signature = metrics.bleu(ENGLISH, references)
    assert bleu == sacrebleu.corpus_bleu(ENGLISH, [OTHER]).score
    assert signature == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    chrf, signature = metrics.chrf(ENGLISH, references)
    assert chrf == sacrebleu.corpus_chrf(ENGLISH, [OTHER]).score
    assert signature == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{sacrebleu.__version__}"


def test_character_bleu_and_ter_are_sacrebleu_s() -> None:
    references = [[line] for line in OTHER]
    char_bleu, signature = metrics.char_bleu(ENGLISH, references)
    assert char_bleu == sacrebleu.corpus_bleu(ENGLISH, [OTHER], tokenize="char").score
    assert signature == f"nrefs:1|case:mixed|eff:no|tok:char|smooth:exp|version:{sacrebleu.__version__}"
    ter, signature = metrics.ter(ENGLISH, references)
    assert ter == sacrebleu.corpus_ter(ENGLISH, [OTHER]).score
    assert signature == f"nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no|version:{sacrebleu.__version__}"


def test_character_bleu_sees_what_words_do_not() -> None:
    outputs, references = ["猫が座った。", "犬が吠えた"], [["猫は座った。"], ["犬も吠えた"]]
    assert metrics.char_bleu(outputs, references)[0] > 20 > metrics.bleu(outputs, references)[0]


@pytest.mark.parametrize(
    ("output", "references", "percent"),
    [
        ("d e f a b c", ["a b c d e f"], 100 / 6),  # a phrase moved: one edit
        ("A b c", ["a b c"], 0),  # case is none of its affair
        ("a b", ["a b c", "x y z v w"], 25),  # of the mean length of the references
        ("a b c d", ["x"], 400),
    ],
)
def test_ter_by_hand(output: str, references: list[str], percent: float) -> None:
    assert metrics.ter([output], [references])[0] == pytest.approx(percent)


def test_the_closest_reference_is_the_first_with_the_fewest_edits() -> None:
    assert metrics.closest("a b", ["a", "a b c", "x y"]) == (["a"], 1)
    assert metrics.closest("a b", ["a", "b a", "a  b"]) == (["a", "b"], 0)


def test_several_references_are_sacrebleu_s() -> None:
    outputs = ["the cat sat on a mat .", "the dog barked at the old postman", "nobody knows it"]
    references = [list(pair) for pair in zip(ENGLISH, OTHER, strict=True)]
    bleu, signature = metrics.bleu(outputs, references)
    assert bleu == sacrebleu.corpus_bleu(outputs, [ENGLISH, OTHER]).score
    assert bleu > metrics.bleu(outputs, [[line] for line in ENGLISH])[0]
    assert "nrefs:2" in signature
    assert metrics.chrf(outputs, references)[0] == sacrebleu.corpus_chrf(outputs, [ENGLISH, OTHER]).score


def test_number_of_references_may_vary() -> None:
    """A missing reference counts for nothing: not as an empty string, which would be the shortest one."""
    references = [[ENGLISH[0], OTHER[0]], [ENGLISH[1]], [ENGLISH[2]]]
    bleu, signature = metrics.bleu(OTHER, references)
    assert "nrefs:var" in signature
    repeated = [options * 2 if len(options) == 1 else options for options in references]
    assert bleu == metrics.bleu(OTHER, repeated)[0]
    assert metrics.chrf(OTHER, references)[0] == metrics.chrf(OTHER, repeated)[0]
    assert metrics.ter(OTHER, references)[0] == metrics.ter(OTHER, repeated)[0]


def test_outputs_that_look_tokenized_are_measured_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    lines = ["It is raining ."] * 200
    with caplog.at_level(logging.DEBUG):
        metrics.bleu(lines, [[line] for line in lines])
        metrics.char_bleu(lines, [[line] for line in lines])
    assert not caplog.records


def test_an_empty_output_is_measured() -> None:
    assert metrics.bleu(["", "x"], [["a b c d"], ["y"]])[0] == 0
    assert metrics.chrf([""], [["a b c d"]])[0] == 0
    assert metrics.char_bleu([""], [["a b c d"]])[0] == 0
    assert metrics.ter([""], [["a b c d"]])[0] == 100
    assert metrics.symbol_error_rate([""], [["a b c d"]]) == 100


def test_exact_match_takes_any_reference() -> None:
    assert metrics.exact_match(["a", "b", "C", ""], [["x", "a"], ["b"], ["c"], ["z"]]) == 50
    assert metrics.sequence_error_rate(["a", "b", "C", ""], [["x", "a"], ["b"], ["c"], ["z"]]) == 50


@pytest.mark.parametrize(
    ("output", "references", "percent"),
    [
        ("K AE T", ["K AE T"], 0),
        ("K  AE\tT ", ["K AE T"], 0),  # only symbols count, not the spaces between
        ("K AH T", ["K AE T"], 100 / 3),  # one replaced
        ("K AE T S", ["K AE T"], 100 / 3),  # one too many
        ("AE", ["K AE T"], 200 / 3),  # two missing
        ("T AE K", ["K AE T"], 200 / 3),  # a swap is two edits
        ("a b c", ["x"], 300),
        ("K AE T S", ["D AO G", "K AE T S AH"], 100 / 5),  # the closest reference, and its length
        ("a b", ["a b c", "a"], 100 / 3),  # as close: the first
        ("", [""], 0),
        ("a", [""], 100),  # no symbol to divide by: as if it were one
    ],
)
def test_symbol_error_rate_by_hand(output: str, references: list[str], percent: float) -> None:
    assert metrics.symbol_error_rate([output], [references]) == pytest.approx(percent)


def test_symbol_error_rate_is_summed_before_it_is_divided() -> None:
    assert metrics.symbol_error_rate(["a b c d e f g h i", "x"], [["a b c d e f g h i"], ["y"]]) == 10


def test_both_names_of_the_symbol_error_rate() -> None:
    assert metrics.word_error_rate(["the old cat"], [["the cat sat"]]) == pytest.approx(200 / 3)
    assert metrics.phone_error_rate(["K AE"], [["K AE T"]]) == pytest.approx(100 / 3)


def test_compute_by_the_names_of_the_settings() -> None:
    outputs, references = ["a b", "c"], [["a b"], ["d"]]
    assert metrics.compute("exact_match", outputs, references) == 50
    assert metrics.compute("wer", outputs, references) == 50
    assert metrics.compute("per", outputs, references) == pytest.approx(100 / 3)
    assert (
        metrics.compute("bleu", ENGLISH, [[line] for line in OTHER])
        == metrics.bleu(ENGLISH, [[line] for line in OTHER])[0]
    )
    assert metrics.compute("ter", outputs, references) == metrics.ter(outputs, references)[0]
    assert metrics.compute("char_bleu", ENGLISH, [[line] for line in OTHER]) > 50


def test_every_metric_of_the_settings_has_a_direction_and_can_be_computed() -> None:
    names = set(get_args(MetricName)) - {"auto"}
    assert set(metrics.HIGHER_IS_BETTER) == names
    right, wrong = [[line] for line in ENGLISH], [[line] for line in OTHER]
    for name in names - {"loss"}:
        gain = metrics.compute(name, ENGLISH, right) - metrics.compute(name, ENGLISH, wrong)
        assert (gain > 0) == metrics.HIGHER_IS_BETTER[name], name


@pytest.mark.parametrize("name", ["loss", "auto", "rouge"])
def test_compute_refuses_what_is_no_metric_of_strings(name: str) -> None:
    with pytest.raises(ValueError, match=f"metric '{name}' cannot be computed from outputs; there are bleu,"):
        metrics.compute(name, ["a"], [["a"]])


@pytest.mark.parametrize("name", ["bleu", "chrf", "exact_match", "wer", "per", "char_bleu", "ter"])
@pytest.mark.parametrize(
    ("outputs", "references", "sentence"),
    [
        ([], [], "no outputs to measure"),
        (["a", "b"], [["a"]], "2 outputs but references for 1"),
        (["a", "b"], [["a"], []], "output 2 has no reference"),
        (["a"], ["a"], "references of output 1 are a string"),
    ],
)
def test_bad_input_is_a_sentence(name: str, outputs: list[str], references: list[list[str]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        metrics.compute(name, outputs, references)
