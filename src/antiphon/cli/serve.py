"""`antiphon serve`."""

from pathlib import Path
from typing import Annotated

import typer

from antiphon.cli.flags import Device, Precision, PrecisionFlag


def serve(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...",
            help="Folders that `antiphon train` wrote; NAME=RUN chooses a name, RUN+RUN is an ensemble.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65535)] = 8000,
    workers: Annotated[
        int | None, typer.Option(help="Engine processes; 0: a thread of the server.", min=0, show_default="one a core")
    ] = None,
    watch: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Show the trainings in it, live; RUN may be left out then.", show_default="none"
        ),
    ] = None,
    device: Device = "cpu",
    precision: PrecisionFlag = Precision.auto,
    api_keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Who may ask: API keys, in TOML.", show_default="everybody")
    ] = None,
    max_outstanding: Annotated[
        int, typer.Option(help="Requests that may wait or run at once; more are told to come again.", min=1)
    ] = 512,
    timeout: Annotated[float, typer.Option(help="Seconds after which a request is given up.", min=0.001)] = 60.0,
    max_body: Annotated[int, typer.Option(help="Bytes that the body of a request may have.", min=1)] = 1 << 20,
    drain_seconds: Annotated[
        float, typer.Option(help="Seconds that requests have to end after the first Ctrl-C or SIGTERM.", min=0)
    ] = 30.0,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Whose web pages may ask; may be given again.", show_default="nobody's"),
    ] = None,
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Texts and outputs stand in the log.")] = False,
    otel: Annotated[
        bool, typer.Option("--otel", help="Send spans to the collector that OpenTelemetry's variables name.")
    ] = False,
) -> None:
    """Answer over HTTP: POST /v1/generate, GET /healthz and /metrics, and the API's own page at /docs."""
    from antiphon.serving.server import run_server
    from antiphon.serving.settings import best_workers, runs_by_name, server_settings

    settings = server_settings(
        runs=runs_by_name(runs or []),
        watch=watch,
        device=device,
        precision=precision.value,
        workers=best_workers(device) if workers is None else workers,
        api_keys=api_keys,
        max_outstanding=max_outstanding,
        timeout=timeout,
        max_body=max_body,
        drain_seconds=drain_seconds,
        cors_origins=tuple(cors_origin or ()),
        log_texts=log_texts,
        trace=otel,
    )
    run_server(settings, host, port)
