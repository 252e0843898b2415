"""Code and commands of the pages, run as they stand; every other command is at least one that the program knows."""

import re
import shlex
import shutil
from pathlib import Path

import click
import pytest

from cm2pyro.cli import cm2pyro
from cm2pyro.encoders import ENCODERS
from docs.run_page import BLOCK, _compare, run
from tests import outside

PAGES = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
ADDED = "cm2pyro prepare physionet2019"  # by an example of extending.md, whose own test runs it
RUNNABLE = [page for page in PAGES if any(block[1] in ("bash", "python") for block in BLOCK.finditer(page.read_text(encoding="utf-8")))]


def test_the_pages_that_promise_to_run_are_among_them() -> None:
    assert {"start.md", "tutorial.md", "own-data.md", "extending.md", "copulas.md"} <= {page.name for page in RUNNABLE}


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_page_runs_as_it_stands(root: Path, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(root / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ENCODERS, "_entries", dict(ENCODERS._entries))  # what a page registers is gone after it
    before = page.read_bytes()
    with outside.apart("mypackage"):
        run(page)
    assert page.read_bytes() == before


def test_the_tutorial_is_a_notebook() -> None:
    jupytext = pytest.importorskip("jupytext")
    page = next(page for page in PAGES if page.name == "tutorial.md")
    cells = [cell.source for cell in jupytext.read(page).cells if cell.cell_type == "code"]
    assert cells == [block[2].rstrip("\n") for block in BLOCK.finditer(page.read_text(encoding="utf-8")) if block[1] == "python"]


def test_shown_output_may_differ_in_numbers_alone() -> None:
    _compare("auroc 0.79 (0.71–0.88)\n[[1.   0.5 ]]\n", "auroc 0.81 (0.7–0.9)\n[[1. 0.48]]\n", "here")
    _compare("first\n…\n", "zeroth\nfirst\nsecond\n", "here")
    for shown, printed in (("auroc 0.79\n", "brier 0.79\n"), ("a\n", "a\nb\n"), ("a\n…\n", "b\n")):
        with pytest.raises(AssertionError, match="here"):
            _compare(shown, printed, "here")


def commands(page: Path) -> list[tuple[int, str]]:
    """Lines that call cm2pyro, in a block of any kind or inside backticks, with what follows a backslash; and their line numbers."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        inside = re.findall(r"`(cm2pyro [^`]+)`", line)
        whole = re.match(r"(?:    |\$ |    \$ )?(cm2pyro .*)$", line)
        found += [(number, command) for command in (inside or ([whole[1]] if whole else []))]
    return found


def parsed(words: list[str]) -> None:
    """Let click read a command line without running it; raises click.UsageError for a command or an option that is not there."""
    command: click.Command = cm2pyro
    context = click.Context(cm2pyro)
    while isinstance(command, click.Group) and words:
        following = command.get_command(context, words[0])
        if following is None:
            raise click.UsageError(f"no command {words[0]}")
        command, words = following, words[1:]
    parser = command.make_parser(context)
    # Pages leave out what must be given, and write A | B for choices: only names of options are held.
    for word in words:
        if word.startswith("--") and word.split("=")[0] not in parser._long_opt and word not in ("--help", "--debug"):
            raise click.UsageError(f"no option {word}")


@pytest.mark.parametrize("page", [*PAGES, Path(__file__).parents[2] / "README.md"], ids=lambda page: page.stem)
def test_every_command_is_one_that_the_program_knows(page: Path) -> None:
    wrong = []
    for number, command in commands(page):
        if "…" in command.split()[1] or command.split()[1].startswith("-") or command.startswith(ADDED):
            continue
        try:
            parsed(shlex.split(command.split(" #")[0].replace("[", " ").replace("]", " ").replace("…", " "))[1:])
        except (click.UsageError, ValueError) as error:
            wrong.append(f"{page.name}:{number}: {command}: {error}")
    assert not wrong, "\n".join(wrong)


def test_a_wrong_option_is_found() -> None:
    parsed(["fit", "config.yaml", "--data", "x", "--out", "y"])
    for words in (["fit", "c", "--dota", "x"], ["fitt"], ["data", "chek"], ["priors", "list", "--out", "x"]):
        with pytest.raises(click.UsageError):
            parsed(words)
