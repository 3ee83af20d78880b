"""The command line: one file a verb, each turning flags into one function call.

A user's mistake ends with one sentence on stderr and exit code 2. Whatever is heavy is imported inside the verbs.
"""

import os
import sys

import typer

from antiphon import machine
from antiphon.cli.demo import demo
from antiphon.cli.distill import distill
from antiphon.cli.evaluate import evaluate
from antiphon.cli.export import export
from antiphon.cli.generate import generate
from antiphon.cli.inspect import inspect
from antiphon.cli.serve import serve
from antiphon.cli.train import train

app = typer.Typer(
    name="antiphon",
    help="Encoder-decoder models from a file of pairs: trained, measured, served.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (train, distill, generate, evaluate, serve, inspect, export, demo):
    app.command()(verb)


def main() -> None:
    """Runs the command line; a mistake of the user becomes a sentence, never a traceback."""
    _fill_closed_streams()
    machine.settle()
    try:
        app(prog_name="antiphon")
    except BrokenPipeError:  # whoever read our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ValueError as error:
        print(f"antiphon: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        what = error.strerror or error
        print(f"antiphon: {place}{what}; check the path, its rights and the disk's room.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _fill_closed_streams() -> None:
    """A standard stream that whoever started us has closed is empty, or takes what is written to nowhere; else the
    next file that is opened would be in its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
