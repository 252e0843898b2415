"""Runs the commands and the code of a page, in order, in one process and an empty folder that holds the shipped configs.

    python docs/run_page.py docs/start.md            # fails where a block fails, or an output shown is not what comes out
    python docs/run_page.py docs/tutorial.md --write [--figures docs]       # shows what comes out in place of what is shown

Blocks: `bash` holds commands of cm2pyro; `python` shares one namespace over the page; `yaml`, `csv` and `python` whose first line is
`# NAME` are written to that file; `text` after a block is what it prints: all of it, or with a line `…` some lines. Numbers may differ,
words may not.
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(bash|python|yaml|csv|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"[-+−]?\d[\d,]*(\.\d*)?(e[-+]?\d+)?")


def run(page: Path, write: bool = False) -> None:
    """Run a page in the current folder. Raises AssertionError where something shown does not come out; `write` mends the page."""
    text = page.read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "__main__"}
    printed, end, made = "", 0, []
    for block in BLOCK.finditer(text):
        kind, code = block.groups()
        line = text.count("\n", 0, block.start()) + 1
        body = block.group()
        if kind == "text":
            if write and "…" not in code.splitlines() and printed:
                body = f"```text\n{printed.rstrip()}\n```"
            elif printed:
                _compare(code, printed, f"{page.name}:{line}")
            printed = ""
        elif (name := re.match(r"# (\S+\.\w+)\n", code)) or kind in ("yaml", "csv"):
            if name:
                Path(name[1]).parent.mkdir(parents=True, exist_ok=True)
                Path(name[1]).write_text(code[name.end() :] if kind == "csv" else code, encoding="utf-8")
        else:
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                if kind == "python":
                    exec(compile("\n" * line + code, str(page), "exec"), names)
                else:
                    _commands(code, f"{page.name}:{line}")
            printed = output.getvalue()
        made += [text[end : block.start()], body]
        end = block.end()
    if write:
        page.write_text("".join([*made, text[end:]]), encoding="utf-8")


def _commands(code: str, where: str) -> None:
    from cm2pyro.cli import main

    for command in code.replace("\\\n", " ").splitlines():
        words = shlex.split(command, comments=True)
        assert not words or words[0] == "cm2pyro", f"{where}: '{command}' is no command of cm2pyro"
        try:
            main(words[1:]) if words else None
        except SystemExit as stop:
            if stop.code:
                raise AssertionError(f"{where}: '{command}' ended with {stop.code}") from stop


def _compare(shown: str, printed: str, where: str) -> None:
    def plain(text: str) -> list[str]:
        lines = [" ".join(_NUMBER.sub("#", line).split()) for line in text.splitlines()]
        return [line.replace("[ ", "[").replace(" ]", "]") for line in lines if line]

    wanted, found = plain(shown), plain(printed)
    if "…" in wanted:
        missing = [line for line in wanted if line != "…" and line not in found]
        assert not missing, f"{where}: '{missing[0]}' is shown and was not printed; printed:\n{printed}"
    else:
        assert wanted == found, f"{where}: shown\n{shown}\nprinted\n{printed}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--figures", type=Path, help="folder to which the pictures go that the page makes")
    arguments = parser.parse_args()
    page, figures = arguments.page.resolve(), arguments.figures and arguments.figures.resolve()
    os.environ.setdefault("MPLBACKEND", "Agg")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "configs", Path(folder) / "configs")
        os.chdir(folder)
        sys.path.insert(0, folder)
        run(page, arguments.write)
        for picture in Path(folder).glob("*.png") if figures else ():
            shutil.copy(picture, figures / picture.name)
        os.chdir(ROOT)
