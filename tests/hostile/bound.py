"""The command line in a process whose memory is bounded."""

import os
import resource
import sys
from pathlib import Path


def run(arguments: list[str], folder: str, report: str, most: int) -> None:
    """Ends the process with the exit code of the command; its standard error goes to `report`.

    Args:
        most: bytes by which the address space may grow.
    """
    from cm2pyro.cli import main

    os.chdir(folder)
    with open(report, "w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.stdout, sys.stderr = open(os.devnull, "w"), os.fdopen(2, "w", closefd=False)  # noqa: SIM115
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + most
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    code = 99
    try:
        main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    sys.stderr.flush()
    os._exit(code)
