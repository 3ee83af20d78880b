"""`antiphon demo`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from antiphon.data.corpora import Corpus
    from antiphon.evaluation.report import Report
    from antiphon.run import Model


NUM_TRAIN = {"english-french": 220_000, "dates": 100_000, "g2p": 110_000}
NUM_HELD_OUT = 1000
MINUTES = {"recurrent": 0.65, "transformer": 2.3}  # three in all
MODELS: dict[str, dict[str, Any]] = {
    "recurrent": {
        "encoder": "gru",
        "decoder": "gru",
        "encoder_layers": 1,
        "decoder_layers": 1,
        "d_model": 256,
        "attention": "dot",
        "input_feeding": False,
        "dropout": 0.0,
    },
    "transformer": {"encoder_layers": 2, "decoder_layers": 2, "d_model": 128, "d_ff": 512, "dropout": 0.0},
}
TRAINING: dict[str, Any] = {
    "batch_tokens": 1024,
    "learning_rate": 4e-3,
    "warmup_steps": 100,
    "label_smoothing": 0.0,
    "max_steps": 0,
    "validations": 3,
    "eval_pairs": 100,
    "average": 1,
    "metric": "exact_match",
}
VOCAB_SIZE = 3000


class CorpusName(StrEnum):
    english_french = "english-french"
    dates = "dates"
    g2p = "g2p"


class ModelName(StrEnum):
    transformer = "transformer"
    recurrent = "recurrent"


def demo(
    corpus: Annotated[
        CorpusName, typer.Option(help="What to learn; dates and g2p need the extra of that name.")
    ] = CorpusName.english_french,
    model: Annotated[ModelName | None, typer.Option(help="Train only this model.", show_default="both")] = None,
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Serve the model afterwards.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the data and of the training.", min=0)] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the models; one from an earlier demo is replaced.")] = Path(
        "runs/demo"
    ),
    port: Annotated[int, typer.Option(help="Port to serve at.", min=0, max=65535)] = 8000,
) -> None:
    """Train from nothing in three minutes, measure on pairs held out, show a few outputs, and serve the model.

    The recurrent model and the transformer share the three minutes.
    """
    import shutil

    from antiphon.data.corpora import build

    names = [str(model)] if model else [str(name) for name in (ModelName.recurrent, ModelName.transformer)]
    data = build(str(corpus), seed, NUM_TRAIN[corpus], NUM_HELD_OUT)
    earlier = [folder for name in names if (folder := out / str(corpus) / name).exists()]
    for folder in earlier:
        if not (folder / "config.json").exists():
            raise ValueError(f"{folder}: is there, and is no run of an earlier demo; choose another --out.")
    for folder in earlier:
        shutil.rmtree(folder)
    typer.echo(f"{corpus}: {len(data.train):,} pairs to learn from; {len(data.held_out):,} held out.")
    trained = {name: _train(data, name, out / str(corpus) / name, seed) for name in names}
    _show_scores(data, trained)
    best = names[-1]
    typer.echo(f"\nThe {best}, on sources it has never seen:")
    for source, output in zip(data.showcase, trained[best].generate(data.showcase, beam_size=4), strict=True):
        typer.echo(f"  {source}  ->  {output}")
    folder = out / str(corpus) / best
    typer.echo(f'\nThe models are in {out / str(corpus)}. Try: echo "{data.showcase[0]}" | antiphon generate {folder}')
    if serve:
        from antiphon.serving.server import run_server
        from antiphon.serving.settings import ServerSettings, best_workers

        run_server(ServerSettings(runs={str(best): folder}, workers=best_workers("cpu")), "127.0.0.1", port)


def _train(data: "Corpus", name: str, out: Path, seed: int) -> "Model":
    from antiphon.cli.progress import TrainingDisplay
    from antiphon.config import changed, load_config
    from antiphon.training.train import train

    tables = {
        "tokenizer": {"vocab_size": VOCAB_SIZE},
        "model": MODELS[name],
        "training": TRAINING | {"max_minutes": MINUTES[name], "seed": seed},
    }
    with TrainingDisplay(name) as display:
        return train(data.train, out, config=changed(load_config(None, None), tables), listener=display)


def _show_scores(data: "Corpus", trained: "dict[str, Model]") -> None:
    from rich.console import Console
    from rich.table import Table

    from antiphon.evaluation.evaluate import evaluate

    reports: dict[str, Report] = {name: evaluate(model, data.held_out) for name, model in trained.items()}
    table = Table(title=f"On {len(data.held_out):,} pairs held out (greedy)", title_justify="left")
    table.add_column("model")
    for column in ("parameters", "exact match", "BLEU", "chrF"):
        table.add_column(column, justify="right")
    for name, report in reports.items():
        table.add_row(
            name,
            f"{trained[name].network.num_parameters:,}",
            f"{report.exact_match:.1f}%",
            f"{report.bleu:.1f}",
            f"{report.chrf:.1f}",
        )
    Console(highlight=False).print(table)
