"""Running the service: a socket, and Uvicorn over it."""

import errno
import socket

import uvicorn

from antiphon.run import Model
from antiphon.serving.app import create_app


def run_server(model: Model, name: str, host: str, port: int) -> None:
    """Serves until it is told to stop (Ctrl-C or SIGTERM). Raises ValueError when the address cannot be had."""
    listener = _listen(host, port)
    host, port = listener.getsockname()[:2]
    print(f"Serving {name} at http://{host}:{port} (API page: http://{host}:{port}/docs)", flush=True)
    print(
        f"Try: curl -s http://{host}:{port}/v1/generate -H 'content-type: application/json' -d '{{\"text\": \"...\"}}'",
        flush=True,
    )
    server = uvicorn.Server(uvicorn.Config(create_app(model, name), log_level="warning"))
    server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        what = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
        raise ValueError(f"{host}:{port}: this address {what}; choose another --host or --port.") from None
    return listener
