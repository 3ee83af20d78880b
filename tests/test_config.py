"""Settings: what is taken, what is refused, and how the refusal is worded."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from antiphon.config import (
    PRESETS,
    Config,
    Table,
    changed,
    generation_settings,
    load_config,
    preset_for,
    with_overrides,
)

TABLES = [field.annotation for field in Config.model_fields.values()]


def refusal(*overrides: str) -> str:
    with pytest.raises(ValueError, match=r"\.$") as caught:
        load_config(None, None, overrides)
    assert not isinstance(caught.value, ValidationError)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("training.learnig_rate=1", "(did you mean 'learning_rate'?)"),
        ("model.dmodel=8", "(did you mean 'd_model'?)"),
        ("generation.beam=8", "(did you mean 'beam_size'?)"),
        ("modle.d_model=8", "(did you mean 'model'?)"),
        ("model.qqqqqq=8", "is not known; there are encoder, decoder,"),
    ],
)
def test_an_unknown_setting_names_the_nearest(word: str, nearest: str) -> None:
    message = refusal(word)
    assert message.startswith(f"--set {word}: setting")
    assert nearest in message


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("model.d_model=abc", "setting 'model.d_model' is 'abc'"),
        ("model.d_model=1", "setting 'model.d_model' is 1"),
        ("model.d_model=2.5", "setting 'model.d_model' is 2.5"),
        ("model.dropout=1", "setting 'model.dropout' is 1"),
        ("model.encoder=rnn", "setting 'model.encoder' is 'rnn'"),
        ("tokenizer.joint=maybe", "setting 'tokenizer.joint' is 'maybe'"),
        ("training.learning_rate=0", "setting 'training.learning_rate' is 0"),
        ("training.learning_rate=Infinity", "setting 'training.learning_rate' is inf"),
        ("training.max_minutes=NaN", "setting 'training.max_minutes' is nan"),
        (f"training.seed={2**64}", f"setting 'training.seed' is {2**64}"),
        ("training.beta2=1", "setting 'training.beta2' is 1"),
        ("generation.top_p=0", "setting 'generation.top_p' is 0"),
        ("generation.temperature=-1", "setting 'generation.temperature' is -1"),
    ],
)
def test_a_value_that_cannot_be_is_shown_with_its_name(word: str, what: str) -> None:
    assert refusal(word).startswith(f"--set {word}: {what}: ")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["model.num_heads=3"], "d_model (256) must be a multiple of num_heads (3)"),
        (["model.d_model=36", "model.num_heads=4"], "rotary positions need an even head width"),
        (["model.encoder=gru", "model.decoder=gru", "model.d_model=31"], "d_model (31) must be even"),
        (["model.copying=true"], "model.copying needs one vocabulary for both sides; set tokenizer.joint to true"),
        (
            ["model.decoder=lstm", "model.attention=monotone", "model.copying=true", "tokenizer.joint=true"],
            "a decoder with monotone attention cannot copy",
        ),
        (["model.attention=monotone"], "attention 'monotone' is for decoders of gru or lstm, not transformer"),
        (["generation.n_best=3"], "n_best (3) is larger than beam_size (1)"),
        (["generation.max_length=3", "generation.min_length=4"], "min_length (4) is larger than max_length (3)"),
    ],
)
def test_values_that_do_not_go_together_are_refused(words: list[str], what: str) -> None:
    assert what in refusal(*words)


def test_widths_that_no_transformer_splits_are_free() -> None:
    words = ["model.encoder=gru", "model.decoder=lstm", "model.bidirectional=false", "model.d_model=31"]
    assert load_config(None, None, words).model.d_model == 31


@pytest.mark.parametrize("word", ["", "model", "model.d_model", "d_model=3", ".d_model=3", "model.=3", "=3"])
def test_a_word_that_is_no_setting_is_told_what_was_expected(word: str) -> None:
    assert "expected table.key=value, for example --set model.d_model=128" in refusal(word)


def test_words_go_over_the_file_which_goes_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[model]\nd_model = 128\nd_ff = 32\n\n[training]\nschedule = "constant"\n', encoding="utf-8-sig")
    config = load_config("tiny", file, ["model.d_ff=64", "model.tie_embeddings=false", "training.device=cuda:1"])
    assert (config.model.d_model, config.model.d_ff, config.model.dropout) == (128, 64, 0.3)
    assert config.training.schedule == "constant"
    assert config.training.device == "cuda:1"
    assert not config.model.tie_embeddings
    assert config.tokenizer.vocab_size == 2000


def test_the_whole_must_be_right_and_no_part_on_the_way(tmp_path: Path) -> None:
    words = ["training.max_steps=0", "training.max_minutes=5"]
    for order in (words, words[::-1]):
        assert load_config("tiny", None, order).training.max_steps == 0
    assert with_overrides(load_config("tiny", None), words).training.max_minutes == 5
    for other in ("model.d_modle=3", "model.num_heads=3"):
        with pytest.raises(ValueError, match=f"^--set {other}: "):
            load_config("tiny", None, [*words, other])
    file = tmp_path / "settings.toml"
    file.write_text("[training]\nmax_steps = 0\n", encoding="utf-8")
    assert load_config("tiny", file, words[1:]).training.max_minutes == 5
    with pytest.raises(ValueError, match=f"^{file}: training has no limit"):
        load_config("tiny", file, ["model.d_model=64"])


def test_a_value_for_a_whole_table_is_refused_whatever_is_set_in_it_later(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("model = 3\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"^{file}: setting 'model' is 3: "):
        load_config("tiny", file, ["model.d_model=64"])
    with pytest.raises(ValueError, match=r"setting 'model\.d_model' is "):
        load_config("tiny", None, ['model.d_model={"x": 1}'])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"[model\nd_model = 3", "not valid TOML: "),
        (b"[model]\nd_model = \xff", "not UTF-8 (byte 18)"),
        (b"[model]\nd_modle = 3", "setting 'model.d_modle' is not known (did you mean 'd_model'?)"),
        (b"model = 3", "setting 'model' is 3: "),
        (b"[model]\nd_model = 1979-05-27", "setting 'model.d_model' is datetime.date"),
    ],
)
def test_a_bad_file_is_named_in_a_sentence(content: bytes, what: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"\.$") as caught:
        load_config(None, file)
    assert str(caught.value).startswith(f"{file}: {what}")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_told() -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        load_config(None, Path("nowhere.toml"))
    with pytest.raises(ValueError, match="cannot be read"):
        load_config(None, Path("/"))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_ends(name: str) -> None:
    config = load_config(name, None)
    assert config.training.max_steps or config.training.max_epochs or config.training.max_minutes


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"preset 'smal' is not known \(did you mean 'small'\?\); there are tiny,"):
        load_config("smal", None)


def test_a_few_minutes_get_a_recurrent_model() -> None:
    assert [preset_for(50_000, minutes) for minutes in (0, 0.1, 30, 31)] == ["small", "recurrent", "recurrent", "small"]


def test_more_pairs_get_a_larger_preset() -> None:
    assert [preset_for(count) for count in (10, 29_999, 30_000, 999_999, 1_000_000)] == [
        "tiny",
        "tiny",
        "small",
        "small",
        "base",
    ]


@pytest.mark.parametrize("table", TABLES)
def test_every_setting_has_a_default_and_a_description(table: type[Table]) -> None:
    for name, field in table.model_fields.items():
        assert not field.is_required(), name
        assert field.description, name


def test_settings_are_frozen_and_changed_copies_are_checked() -> None:
    config = Config()
    with pytest.raises(ValidationError):
        config.model.d_model = 3  # type: ignore[misc]
    assert changed(config, {"model": {"d_model": 64}}).model.d_model == 64
    assert config.model.d_model == 256
    with pytest.raises(ValueError, match="must be a multiple of num_heads"):
        changed(config, {"model": {"d_model": 63}})


def test_a_request_replaces_only_the_settings_it_gives() -> None:
    base = load_config(None, None, ["generation.beam_size=4", "generation.length_penalty=0.5"]).generation
    wanted = generation_settings(base, n_best=2, beam_size=None)
    assert (wanted.beam_size, wanted.n_best, wanted.length_penalty) == (4, 2, 0.5)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"beam": 5}, r"setting 'beam' is not known \(did you mean 'beam_size'\?\)"),
        ({"beam_size": 0}, "setting 'beam_size' is 0"),
        ({"n_best": 2}, r"n_best \(2\) is larger than beam_size \(1\)"),
    ],
)
def test_a_request_that_cannot_be_is_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=f"generation settings: {what}"):
        generation_settings(Config().generation, **settings)


def test_a_config_comes_back_from_its_json() -> None:
    config = load_config("recurrent", None, ["tokenizer.joint=true", "training.max_minutes=0.5"])
    assert Config.model_validate_json(config.model_dump_json()) == config
