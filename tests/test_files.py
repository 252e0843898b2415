"""Files and folders appear whole or not at all, and nothing that was there is lost by mistake."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cm2pyro.errors import ConfigError, DataError
from cm2pyro.files import atomic, check_out_folder, fresh_folder, write_text


@pytest.fixture(params=[0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_appears_when_the_block_ends(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "a.csv"
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == tmp_path, "a rename within one file system"
        assert temporary.suffix == ".csv"
    assert path.read_text() == "new"
    assert mode(path) == 0o666 & ~umask
    assert os.listdir(tmp_path) == ["a.csv"]
    assert os.umask(umask) == umask, "the umask is as it was"


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old é")

    def failing(error: type[BaseException]) -> None:
        with atomic(str(path)) as temporary:
            temporary.write_text("half")
            raise error

    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            failing(error)
    assert path.read_bytes() == "old é".encode()
    assert os.listdir(tmp_path) == ["a.txt"]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cases = {
        tmp_path: "is a folder; a file name is expected",
        tmp_path / "absent" / "a.csv": "cannot be written (No such file or directory); choose a folder that exists",
        tmp_path / "file" / "a.csv": "cannot be written (Not a directory)",
        tmp_path / ("a" * 300): "cannot be written (File name too long)",
    }
    for path, says in cases.items():
        with pytest.raises(DataError) as caught:
            write_text(path, "x")
        assert str(caught.value).startswith(f"{path}: {says}")
        assert len(str(caught.value).splitlines()) == 1
    assert os.listdir(tmp_path) == ["file"]


# --- folders ---------------------------------------------------------------------------------------------------------


def made(out: Path, overwrite: bool = False, content: str = "new") -> None:
    with fresh_folder(out, overwrite, "manifest.csv") as folder:
        (folder / "manifest.csv").write_text(content)
        (folder / "sub").mkdir()


def test_a_folder_appears_when_the_block_ends(tmp_path: Path, umask: int) -> None:
    out = tmp_path / "deep" / "out"
    with fresh_folder(out, False, "manifest.csv") as folder:
        (folder / "manifest.csv").write_text("x")
        assert not out.exists()
    assert os.listdir(out) == ["manifest.csv"]
    assert mode(out) == 0o777 & ~umask
    assert os.listdir(out.parent) == ["out"]


def test_an_empty_folder_is_filled_and_an_old_one_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    made(out, content="old")
    (out / "stale").write_text("")
    made(out, overwrite=True)
    assert sorted(os.listdir(out)) == ["manifest.csv", "sub"]
    assert (out / "manifest.csv").read_text() == "new"
    assert os.listdir(tmp_path) == ["out"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    made(out, content="old")

    def stopped() -> None:
        with fresh_folder(out, True, "manifest.csv") as folder:
            (folder / "manifest.csv").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert (out / "manifest.csv").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]
    # Also when the very last step, the rename of the new folder, fails.
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target) == out and ".old." not in str(source):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        made(out, overwrite=True)
    assert (out / "manifest.csv").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_a_link_to_a_folder_and_the_working_folder_are_replaced_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    made(real, content="old")
    link.symlink_to(real)
    made(link, overwrite=True)
    assert link.is_symlink()
    assert (real / "manifest.csv").read_text() == "new"
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    made(Path())
    assert (here / "manifest.csv").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["here", "link", "real"]


def test_what_would_be_lost_is_refused(tmp_path: Path) -> None:
    home, run, file = tmp_path / "home", tmp_path / "run", tmp_path / "file"
    made(run)
    home.mkdir()
    (home / "thesis.tex").write_text("")
    file.write_text("")
    cases: list[tuple[Path, bool, str]] = [
        (run, False, "the folder is not empty; pass --overwrite to replace it or name another"),
        (home, False, "the folder is not empty"),
        (home, True, "--overwrite replaces only a folder that holds manifest.csv, and this one does not; name another"),
        (file, True, "is a file; an output folder is expected; name another"),
    ]
    for out, overwrite, says in cases:
        with pytest.raises(ConfigError) as caught:
            made(out, overwrite)
        assert str(caught.value).startswith(f"{out}: {says}")
        assert len(str(caught.value).splitlines()) == 1
    assert os.listdir(home) == ["thesis.tex"]
    assert sorted(os.listdir(tmp_path)) == ["file", "home", "run"]
    check_out_folder(tmp_path / "absent", False, "manifest.csv")
    assert not (tmp_path / "absent").exists()


def test_a_parent_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"out: cannot be written \((File exists|Not a directory)\); choose a folder that is writable"):
        made(tmp_path / "file" / "out")
