"""`antiphon serve`."""

from typing import Annotated

import typer

from antiphon.cli.flags import Device, Precision, PrecisionFlag


def serve(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Folders that `antiphon train` wrote; NAME=RUN chooses a name.", show_default=False
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65535)] = 8000,
    workers: Annotated[
        int | None, typer.Option(help="Engine processes; 0: a thread of the server.", min=0, show_default="one a core")
    ] = None,
    device: Device = "cpu",
    precision: PrecisionFlag = Precision.auto,
) -> None:
    """Answer over HTTP: POST /v1/generate, GET /healthz, and the API's own page at /docs."""
    from antiphon.serving.server import run_server
    from antiphon.serving.settings import ServerSettings, best_workers, runs_by_name

    settings = ServerSettings(
        runs=runs_by_name(runs),
        device=device,
        precision=precision.value,
        workers=best_workers(device) if workers is None else workers,
    )
    run_server(settings, host, port)
