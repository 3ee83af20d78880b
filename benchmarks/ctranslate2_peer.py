"""CTranslate2 as a contender: the exported weights, given and giving pieces, as its users call it.

Run by translation.py and cold_start.py with the interpreter that peers.py installed for it. spec["settings"] are the
translator's (compute_type, inter_threads, intra_threads), spec["batches"] those of a call (max_batch_size, batch_type).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
from tasks import EOS, contend, read_sentences, translate_in_turns
from turns import Turns


def pieces_of(folder: Path, side: str) -> list[str]:
    """The vocabulary in the order of its ids."""
    shared, own = folder / "shared_vocabulary.json", folder / f"{side}_vocabulary.json"
    found: list[str] = json.loads((shared if shared.exists() else own).read_text(encoding="utf-8"))
    return found


def translate(spec: dict[str, Any], turns: Turns) -> None:
    folder = Path(spec["model"])
    source_pieces, target_pieces = (pieces_of(folder, side) for side in ("source", "target"))
    ids = {piece: index for index, piece in enumerate(target_pieces)}
    adds_end = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("add_source_eos", False)
    sources = [
        [source_pieces[token] for token in sentence if not (adds_end and token == EOS)]
        for sentence in read_sentences(spec["sentences"])
    ]
    translator = ctranslate2.Translator(str(folder), **spec["settings"])

    def call(sentences: Sequence[list[str]]) -> list[list[str]]:
        results = translator.translate_batch(
            list(sentences),
            beam_size=spec["beam"],
            length_penalty=spec["length_penalty"],
            max_decoding_length=spec["max_length"],
            **spec["batches"],
        )
        return [result.hypotheses[0] for result in results]

    translate_in_turns(spec, turns, sources, call, shown=lambda output: [ids[piece] for piece in output])


def supported(spec: dict[str, Any], turns: Turns) -> None:
    """Which of spec["compute_types"] this processor has: counts 1 for each."""
    known = ctranslate2.get_supported_compute_types("cpu")
    while turns.wanted():
        turns.count(**{name: int(name in known) for name in spec["compute_types"]})


if __name__ == "__main__":
    contend({"translate": translate, "supported": supported})
