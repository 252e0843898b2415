"""The command line: one file a command. Nothing heavy is imported before a command runs."""

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import click

from cm2pyro.errors import explain

# command -> module with a click command of that name
_COMMANDS = {
    "simulate": "cm2pyro.cli.simulate",
    "prepare": "cm2pyro.cli.prepare",
    "configs": "cm2pyro.cli.configs",
    "data": "cm2pyro.cli.data",
    "priors": "cm2pyro.cli.priors",
    "fit": "cm2pyro.cli.fit",
    "predict": "cm2pyro.cli.predict",
    "impute": "cm2pyro.cli.impute",
    "evaluate": "cm2pyro.cli.evaluate",
    "recalibrate": "cm2pyro.cli.recalibrate",
    "diagnose": "cm2pyro.cli.diagnose",
    "compare": "cm2pyro.cli.compare",
    "select": "cm2pyro.cli.select",
    "sweep": "cm2pyro.cli.sweep",
}


class _Commands(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[name]), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog="Add --debug to any command for a traceback.")
@click.version_option(package_name="cm2pyro", prog_name="cm2pyro")
def cm2pyro() -> None:
    """Learn from patients whose data comes in several forms, some of them missing."""


def main(arguments: list[str] | None = None) -> Any:
    """Run a command. Every refusal is one line on stderr; exit code 2 for command line and config, 1 for data and files."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        with warnings.catch_warnings():
            if not (debug or sys.warnoptions):  # what a user should know is said; remarks of libraries are for developers
                warnings.simplefilter("ignore")
            with _together(arguments):
                cm2pyro.main(arguments, prog_name="cm2pyro", standalone_mode=False)
        code = 0
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        code = _refuse(_one_line(error), 2, debug)
    except (click.Abort, KeyboardInterrupt):
        code = _refuse("stopped; a fit that has ended an epoch goes on with --resume", 130, debug)
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        code = _refuse(*explain(error), debug)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of libraries in Rust, which derive it from BaseException
            raise
        code = _refuse(*explain(error), debug)
    sys.exit(code)


_SHARED = ("fit", "predict", "evaluate")  # commands that several processes can run together


def _processes() -> int:
    """How many processes run this command, by what torchrun tells each of them."""
    told = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")]
    return int(told[1]) if all(told) and told[0].isdecimal() and told[1].isdecimal() else 1


@contextmanager
def _together(arguments: list[str]) -> Iterator[None]:
    """Let the processes that torchrun has started know of each other; the first one alone prints."""
    if _processes() == 1:
        yield
        return
    silent = open(os.devnull, "w") if os.environ["RANK"] != "0" else sys.stdout  # noqa: SIM115
    with redirect_stdout(silent):
        if not arguments or {"-h", "--help", "--version"} & set(arguments):
            yield
            return
        if arguments[0] not in _SHARED:
            raise click.UsageError(f"'{arguments[0]}' runs in one process, and torchrun has started {_processes()}; start it without.")
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else DDP remarks on the flag that modalities without rows need
        from cm2pyro.inference.distributed import processes

        with processes():
            yield


def _speaks() -> bool:
    """Whether this process is to say what went wrong: of several one does."""
    if _processes() == 1:
        return True
    if "cm2pyro.inference.distributed" not in sys.modules:  # they do not know of each other yet, and all have found the same
        return os.environ["RANK"] == "0"
    from cm2pyro.inference.distributed import speaks_first

    return speaks_first()


def _one_line(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    return f"{message} See '{context.command_path} --help'." if context is not None else message


def printable(line: str) -> str:
    """One line without control characters: text of a user's file must not steer the terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in line)


def say(line: str) -> None:
    """Print a line in which names from a user's file may stand."""
    click.echo(printable(line))


def _refuse(message: str, code: int, debug: bool) -> int:
    if not _speaks():
        return code
    if debug:
        traceback.print_exc()
    click.echo(f"error: {printable(message)}", err=True)
    return code
