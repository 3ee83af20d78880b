"""`antiphon serve`."""

from typing import Annotated

import typer

from antiphon.cli.flags import Device, Precision, PrecisionFlag, Run


def serve(
    run: Run,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65535)] = 8000,
    device: Device = "cpu",
    precision: PrecisionFlag = Precision.auto,
) -> None:
    """Answer over HTTP: POST /v1/generate, GET /healthz, and the API's own page at /docs."""
    from antiphon.run import Model
    from antiphon.serving.server import run_server

    run_server(Model.load(run, device, precision.value), run.resolve().name, host, port)
