"""Commands as a user types them, for the tests of this folder."""

import pytest

from cm2pyro.cli import main


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run a command; its exit code and what it wrote to both streams."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def done(*arguments: object) -> None:
    """Run a command that must end well, where nobody asks what it says."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert not stop.value.code


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """Run a command that must be refused; its one line."""
    got, _, err = call(capsys, *arguments)
    assert got == code, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert "fault of cm2pyro" not in err
    return err
