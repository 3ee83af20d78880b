"""`antiphon export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from antiphon.cli.flags import Run


class Format(StrEnum):
    ctranslate2 = "ctranslate2"
    huggingface = "huggingface"


def export(
    run: Run,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write; a new one, or empty.", show_default=False)
    ],
    format: Annotated[
        Format, typer.Option(help="Who will read it: CTranslate2 (extra: ctranslate2), or Hugging Face's transformers.")
    ],
) -> None:
    """Write a model for another runtime, which then gives the same scores and the same greedy outputs.

    CTranslate2 runs every transformer; Hugging Face those with sinusoidal positions, feed_forward=gelu and one
    vocabulary, as M2M100.
    """
    from antiphon.run import Model

    model = Model.load(run, precision="float32")
    if format is Format.ctranslate2:
        from antiphon.convert.ctranslate2 import export as write

        cutter = "tokenizer.json" if model.tokenizers.joint else "source.tokenizer.json"
        use = f'ctranslate2.Translator("{out}").translate_batch([tokens]); {cutter} cuts a source into its tokens.'
    else:
        from antiphon.convert.huggingface import export as write

        use = f'AutoModelForSeq2SeqLM.from_pretrained("{out}"), and AutoTokenizer the same.'
    write(model, out)
    typer.echo(f"The model is in {out}. Use it: {use}")
