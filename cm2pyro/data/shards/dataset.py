"""A data set that is read shard by shard, in the order in which batches ask for it."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, prod

import numpy as np
import torch
from torch import Tensor

from cm2pyro.data.columns import compact
from cm2pyro.data.dataset import Batch, Dataset, joined
from cm2pyro.data.kind import Kind
from cm2pyro.data.prepared import Preparation
from cm2pyro.data.sampled import row_keys
from cm2pyro.data.shards.index import Rows, Shard, Shards
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.noise import Share

WINDOW_ROWS, WINDOW_BYTES = 16_384, 256 << 20  # shuffled together; twice that is held, since the next window is read ahead
HELD_ROWS, HELD_BYTES = 20_000, 256 << 20  # of the rows that place the mixture, and of those that stop a fit
_SAMPLED_SHARDS = 128
_INTEGERS = {"pixels": 1, "tokens": 4}  # bytes of an element; others are float32


Shuffle = torch.Generator | int | None  # an int: the seed of one


@dataclass(frozen=True)
class Part:
    """Rows of a shard: those at the positions `rows`, all for None."""

    shard: Shard
    rows: Rows | None = None

    def __len__(self) -> int:
        return self.shard.rows if self.rows is None else len(self.rows)


class Remarks:
    """Lines about the data, of which shards repeat the same with other numbers: the first of each sort is kept."""

    def __init__(self) -> None:
        self._lines: dict[str, tuple[str, int]] = {}

    def add(self, lines: list[str]) -> None:
        """Those of another shard."""
        for line in lines:
            sort = re.sub(r"[\d,.]+", "#", line.partition(", first ")[0])
            first, count = self._lines.get(sort, (line, 0))
            self._lines[sort] = (first, count + 1)

    @classmethod
    def merged(cls, several: "Sequence[Remarks]") -> "Remarks":
        """Of shards that different processes read."""
        if len(several) == 1:
            return several[0]
        whole = cls()
        for remarks in several:
            for sort, (line, count) in remarks._lines.items():
                first, before = whole._lines.get(sort, (line, 0))
                whole._lines[sort] = (first, before + count)
        return whole

    def lines(self) -> list[str]:
        """One of each sort, and how many shards had one alike."""
        return [line if count == 1 else f"{line} (one shard; {count - 1} more alike)" for line, count in self._lines.values()]


@dataclass(frozen=True)
class StreamedDataset:
    """Rows of shards, with the methods of `Dataset` that go from row to row.

    Batches: shards are read in windows of `WINDOW_ROWS` rows (at most `WINDOW_BYTES` of tensors, one shard at least), the next
    window in a thread while the present one is used. With a generator the shards are put in random order first, and the rows of a
    window are shuffled together; where all rows fit into one window, that is exactly the order of `Dataset.batches`.

    Attributes:
        parts: in the order of the rows. preparation: fitted; its remarks are left alone. with_labels: read them, or leave all empty.
        remarks: what readers had to say.
    """

    source: Shards
    parts: tuple[Part, ...]
    preparation: Preparation
    with_labels: bool = True
    remarks: Remarks = field(default_factory=Remarks, compare=False)
    window_rows: int = WINDOW_ROWS
    observed_rows: tuple[int, ...] = ()
    labelled_rows: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return self.preparation.names

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def observed_share(self) -> list[float]:
        """M shares of rows that have each modality; known of training rows."""
        return [count / max(len(self), 1) for count in self.observed_rows]

    def unlabelled(self) -> int:
        """How many rows have no label; known of training rows."""
        return len(self) - self.labelled_rows

    # --- reading ------------------------------------------------------------------------------------------------------

    def load(self, part: Part) -> Dataset:
        """The rows of a part, in memory."""
        own = replace(self.preparation, remarks=[])  # read in a thread: the preparation's own remarks belong to the caller
        with self.source.manifest(part.shard, part.rows) as manifest:
            made = own.transform(manifest, self.with_labels)
        self.remarks.add(own.remarks)
        return made

    def datasets(self) -> Iterator[Dataset]:
        """Every part in order, the next read ahead."""
        return self._ahead([[part] for part in self.parts])

    def sample(self, limit: int | None = None) -> Dataset:
        """A random sample in memory: at most `HELD_ROWS` rows and about `HELD_BYTES` of tensors; all rows in order if they fit.

        It is drawn from 128 random shards where there are more, and depends on names of shards and sample ids alone.
        """
        most = max(1, min(HELD_ROWS if limit is None else limit, HELD_BYTES // row_bytes(self.preparation)))
        among = self.parts
        if len(among) > _SAMPLED_SHARDS:  # reading all would take as long as an epoch
            order = np.argsort(row_keys(part.shard.name for part in among))
            least = int(np.searchsorted(np.cumsum([len(among[i]) for i in order]), most)) + 1
            among = tuple(among[i] for i in sorted(order[: max(_SAMPLED_SHARDS, least)].tolist()))
        made = [self._compact(dataset) for dataset in replace(self, parts=chosen(self.source, among, most)).datasets()]
        return joined(made) if made else self.load(Part(self.parts[0].shard, np.zeros(0, dtype=np.int64)))

    @staticmethod
    def _compact(dataset: Dataset) -> Dataset:
        return replace(dataset, inputs={name: {view: compact(x) for view, x in views.items()} for name, views in dataset.inputs.items()})

    @cached_property
    def pilot(self) -> Dataset:
        """`sample`, read once: what places the mixture, and what is watched."""
        return self.sample()

    # --- batches ------------------------------------------------------------------------------------------------------

    def batches(self, size: int, generator: torch.Generator | None = None, skip: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Batches of `size` rows, the last one smaller; the first `skip` are passed over, and windows before them are not read.

        With `world` processes, each reads its own shards: every `world`-th in the order that the generator gives. The order depends
        on the generator, rank and world alone. All ranks give equally many batches of the same sizes: one that has fewer rows begins again.
        """
        windows, n = self._plan(generator, rank, world)
        steps, first = ceil(n / size), skip * size
        for _ in range(world - 1):  # a rank with few rows begins again, more than once if it has very few
            windows += windows if windows and _rows([part for parts, _ in windows for part in parts]) < n else []
        while windows and first >= _rows(windows[0][0]):
            first -= _rows(windows[0][0])
            windows.pop(0)
        starts = np.cumsum([0, *map(len, self.parts)]).tolist()
        offset = {id(part): start for part, start in zip(self.parts, starts, strict=False)}
        rest: tuple[Dataset, Tensor] | None = None  # what a window leaves over goes into the first batch of the next
        given = skip
        for (parts, shuffle), dataset in zip(windows, self._ahead([parts for parts, _ in windows]), strict=True):
            rows = torch.cat([torch.arange(len(part)) + offset[id(part)] for part in parts])
            if isinstance(shuffle, int):  # made here: a window that is read twice, or after others were passed over, has the same order
                shuffle = torch.Generator().manual_seed(shuffle)
            order = torch.arange(len(rows)) if shuffle is None else torch.randperm(len(rows), generator=shuffle)
            order, first = order[first:], 0
            if rest is not None:
                left = len(rest[0])
                dataset, rows, order = joined([rest[0], dataset]), torch.cat([rest[1], rows]), torch.cat([torch.arange(left), order + left])
            whole = len(order) - len(order) % size
            for some in order[:whole].split(size) if whole else ():
                if given < steps:
                    some = some[: n - given * size]
                    given += 1
                    yield replace(dataset.batch(some), rows=rows[some], size=len(self))
            over = order[whole:]
            rest = (self._compact(dataset.take(over.tolist())), rows[over]) if len(over) else None
        if rest is not None and given < steps:
            yield replace(rest[0].batch(torch.arange(len(rest[0]))), rows=rest[1], size=len(self))

    def shares(self, size: int, generator: torch.Generator | None = None, skip: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """As `batches`, `size` being the rows of all `world` processes together. Raises ConfigError if these cannot be equally many."""
        if world == 1:
            yield from self.batches(size, generator, skip)
            return
        if size % world:
            raise ConfigError(
                f"fit.batch_size: {size} rows, and {world} processes read shards of their own; expected a multiple of {world}"
            )
        for batch in self.batches(size // world, generator, skip, rank, world):
            yield replace(batch, share=Share(rank, rank * len(batch), len(batch), world * len(batch)))

    def _plan(self, generator: torch.Generator | None, rank: int, world: int) -> tuple[list[tuple[list[Part], Shuffle]], int]:
        """The windows of a rank, what shuffles each, and how many rows every rank gives."""
        if world > len(self.parts):
            raise DataError(
                f"{self.source.name}: {len(self.parts)} shards for {world} processes; expected at least one each; "
                "make smaller ones with --rows-per-shard, or start fewer processes"
            )
        order = list(self.parts)
        alone = world == 1 and len(self._windows(order)) <= 1
        if generator is not None and not alone:
            order = [self.parts[i] for i in torch.randperm(len(order), generator=generator).tolist()]
        most = max((_rows(order[r::world]) for r in range(world)), default=0)
        windows = self._windows(order[rank::world])
        if generator is None or alone:
            return [(parts, generator) for parts in windows], most
        # Every window has a seed of its own, so that one can be passed over without being read.
        seeds = torch.randint(2**62, (world, len(order)), generator=generator)[rank].tolist()
        return list(zip(windows, seeds, strict=False)), most

    def _windows(self, parts: Sequence[Part]) -> list[list[Part]]:
        most = max(1, min(self.window_rows, WINDOW_BYTES // row_bytes(self.preparation)))
        windows: list[list[Part]] = []
        held = most + 1
        for part in parts:
            if held + len(part) > most:
                windows.append([])
                held = 0
            windows[-1].append(part)
            held += len(part)
        return windows

    def _ahead(self, windows: list[list[Part]]) -> Iterator[Dataset]:
        """Each window as one data set; a thread reads the next while the caller uses one."""

        def load(parts: list[Part]) -> Dataset:
            return joined([self.load(part) for part in parts])

        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(load, parts) for parts in windows[:1]]
            try:
                for i in range(len(windows)):
                    found = ahead.pop().result()
                    ahead += [pool.submit(load, parts) for parts in windows[i + 1 : i + 2]]
                    yield found
            finally:
                for future in ahead:
                    future.cancel()


def _rows(parts: Sequence[Part]) -> int:
    return sum(map(len, parts))


def chosen(source: Shards, parts: Sequence[Part], limit: int, column: str = "sample_id") -> tuple[Part, ...]:
    """A uniform random sample of at most `limit` rows; all parts if they are no more. By subject it takes all rows of each.

    12 bytes a row are held while it is drawn.
    """
    if sum(map(len, parts)) <= limit:
        return tuple(parts)
    keys = [row_keys(cells(source, part, column)) for part in parts]
    last = np.partition(np.concatenate(keys), limit - 1)[limit - 1]
    found = []
    for part, key in zip(parts, keys, strict=True):
        rows = np.flatnonzero(key <= last)
        if len(rows):
            found.append(Part(part.shard, rows if part.rows is None else part.rows[rows]))
    return tuple(found)


def cells(source: Shards, part: Part, column: str) -> list[str]:
    """Cells (n) of a column of the manifest."""
    found = source.frame(part.shard, [column])[column]
    return list(found if part.rows is None else found.iloc[part.rows])


def row_bytes(preparation: Preparation) -> int:
    """Of the tensors of one row that has every modality."""
    return max(1, sum(_bytes(kind) for kind in preparation.kinds.values()))


def _bytes(kind: Kind) -> int:
    return sum(prod(shape) * _INTEGERS.get(view, 4) for view, shape in kind.shapes().items())
