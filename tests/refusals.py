"""A refusal is one printable line that names what has to be named."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cm2pyro.errors import CM2Error, ConfigError, DataError


@contextmanager
def refused(kind: type[CM2Error], *says: str) -> Iterator[None]:
    """What the block runs is refused so; every part of `says` is in the message."""
    with pytest.raises(kind) as caught:
        yield
    text = str(caught.value)
    assert text.isprintable()  # so it has one line
    assert len(text) < 1000
    for part in says:
        assert part in text, text


def refusal(call: Callable[[], Any], *says: str) -> None:
    with refused(DataError, *says):
        call()


def config_refusal(call: Callable[[], Any], *says: str) -> None:
    with refused(ConfigError, *says):
        call()


def nothing_left(out: Path) -> None:
    """Neither the folder nor a temporary one beside it."""
    assert not out.exists()
    assert not list(out.parent.glob(f".{out.name}*"))
