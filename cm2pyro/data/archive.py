"""Tar archives read member by member, nothing unpacked to disk, and within limits on what they unfold to."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cm2pyro.errors import DataError
from cm2pyro.files import open_regular
from cm2pyro.registry import one_line

MOST_BYTES = 1 << 30  # of an archive once unpacked; that of the challenge's 4,000 stays has 40 MB
MOST_MEMBERS = 50_000
_MOST_AT_ONCE = 64 << 20  # a long name or an extended header is read at once, and its size is what the archive says
_MAGIC: tuple[tuple[bytes, Callable[..., Any]], ...] = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))

Member = tuple[tarfile.TarInfo, Callable[[], bytes]]


def members(path: Path) -> Iterator[Member]:
    """Members in their order, each with what reads its content; in the end the archive's checksum has been compared, if it has one.

    Raises:
        DataError: more bytes or members than the limits, a name that leaves the archive, no regular file. OSError, EOFError and what
            tarfile and the decompressors raise: it cannot be read.
    """
    with open_regular(path) as raw:
        start = raw.read(6)
        raw.seek(0)
        opener = next((opener for magic, opener in _MAGIC if start.startswith(magic)), None)
        with _Bounded(raw if opener is None else opener(raw), path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for count, member in enumerate(archive, 1):
                if count > MOST_MEMBERS:
                    raise DataError(f"{path}: holds more than {MOST_MEMBERS:,} files, expected at most so many; {_REMEDY}")
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise DataError(
                        f"{path}: member '{one_line(member.name, 100)}' leaves the archive, expected a name inside it; {_REMEDY}"
                    )
                stream.expect(member.size)

                def content(member: tarfile.TarInfo = member) -> bytes:
                    opened = archive.extractfile(member)
                    return b"" if opened is None else opened.read()

                yield member, content
            while stream.read(1 << 20):
                pass  # a checksum stands at the end


_REMEDY = "download the archive again"


class _Bounded(io.RawIOBase):
    """A stream for reading that refuses to go beyond `MOST_BYTES`."""

    def __init__(self, inner: IO[bytes], path: Path) -> None:
        self._inner, self._path = inner, path

    def expect(self, more: int) -> None:
        """Refuse what would lead beyond the limit."""
        if self._inner.tell() + more > MOST_BYTES:
            raise DataError(
                f"{self._path}: unpacks to {self._inner.tell() + more:,} bytes or more, expected at most {MOST_BYTES:,}; {_REMEDY}"
            )

    def read(self, size: int = -1, /) -> bytes:
        self.expect(max(size, 0))
        if size > _MOST_AT_ONCE:
            raise DataError(f"{self._path}: a header asks for {size:,} bytes, expected at most {_MOST_AT_ONCE:,}; {_REMEDY}")
        return self._inner.read(size)

    def seek(self, place: int, whence: int = 0, /) -> int:
        if whence == 0:
            self.expect(max(place - self._inner.tell(), 0))
        return self._inner.seek(place, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._inner.close()
        super().close()
