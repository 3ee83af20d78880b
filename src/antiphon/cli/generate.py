"""`antiphon generate`."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from antiphon.cli.flags import Beam, Device, Keep, LengthPenalty, Mbr, NoRepeatNgram, Precision, PrecisionFlag, Run

if TYPE_CHECKING:
    from antiphon.text_side import Output

BLOCK = 2048  # lines decoded together


def generate(
    run: Run,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file of sources, a line each; - reads standard input.")
    ] = "-",
    beam: Beam = None,
    n_best: Annotated[int | None, typer.Option(help="Outputs for each line.", show_default="1")] = None,
    prefix: Annotated[str, typer.Option(help="Every output begins with this.")] = "",
    sample: Annotated[bool, typer.Option("--sample", help="Draw outputs at random instead of searching.")] = False,
    temperature: Annotated[float | None, typer.Option(help="Sampling: below 1 sharpens.", show_default="1")] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Sampling: only the k most probable tokens.", show_default="all")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Sampling: only the most probable tokens of this sum.", show_default="1"),
    ] = None,
    mbr: Mbr = None,
    keep: Keep = None,
    seed: Annotated[int | None, typer.Option(help="Sampling: the same seed draws the same.", show_default="0")] = None,
    min_length: Annotated[int | None, typer.Option(help="Tokens before an output may end.", show_default="0")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens after which an output is cut.", show_default="by the source")
    ] = None,
    length_penalty: LengthPenalty = None,
    no_repeat_ngram: NoRepeatNgram = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON object a line: source, outputs, scores, tokens.")
    ] = False,
    device: Device = "cpu",
    precision: PrecisionFlag = Precision.auto,
) -> None:
    """Answer each line of FILE: lines in, lines out, in order.

    An empty line gives an empty line. With --n-best N each answer is a line: number of the source, score, text, with
    tabs between.
    """
    from antiphon.data.pairs import read_lines
    from antiphon.run import Model

    model = Model.load(run, device, precision.value)
    usual = model.config.generation
    by_beam = beam is not None and mbr is None and not sample  # whatever the run does by itself
    is_drawn = sample or mbr is not None or (usual.sample and not by_beam)
    if not is_drawn:
        _refuse_unused({"--temperature": temperature, "--top-k": top_k, "--top-p": top_p, "--seed": seed})
    elif mbr is None and beam not in (None, 1):
        raise ValueError(f"--beam {beam}: samples are not drawn from a beam; leave out one of them.")
    settings: dict[str, Any] = {
        "beam_size": beam if beam is not None or is_drawn else max(n_best or 1, usual.beam_size),
        "n_best": n_best,
        "sample": False if by_beam else sample or None,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "min_length": min_length,
        "max_length": max_length,
        "length_penalty": length_penalty,
        "no_repeat_ngram": no_repeat_ngram,
        "mbr": mbr,
        "keep": keep,
    }
    lines = read_lines(file)
    size = 1 if file == "-" and sys.stdin.isatty() else BLOCK
    number = 0
    while block := list(islice(lines, size)):
        for source, outputs in zip(block, model.outputs(block, prefix=prefix, **settings), strict=True):
            number += 1
            for line in _shown(number, source, outputs, as_json, n_best or usual.n_best):
                print(line)
        sys.stdout.flush()


def _refuse_unused(flags: dict[str, float | None]) -> None:
    """Raises ValueError for a flag of samples that is given."""
    for flag, value in flags.items():
        if value is not None:
            raise ValueError(f"{flag} {value}: is for samples only; add --sample, or leave it out.")


def _shown(number: int, source: str, outputs: "list[Output]", as_json: bool, n_best: int) -> Iterator[str]:
    if as_json:
        kept: list[dict[str, Any]] = [asdict(output) for output in outputs]
        for fields in kept:
            del fields["attention"]
        yield json.dumps({"source": source, "outputs": kept}, ensure_ascii=False)
    elif n_best > 1:
        for output in outputs:
            yield f"{number}\t{output.score:.4f}\t{one_line(output.text)}"
    else:
        yield one_line(outputs[0].text)


def one_line(text: str) -> str:
    """A text that a model gave may hold line ends; a line out must be a line."""
    return text.replace("\r", " ").replace("\n", " ")
