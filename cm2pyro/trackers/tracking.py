"""The trackers of one fit: who is told what, and where each stands, so that a fit that goes on tells it the rest."""

import importlib.util
import json
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cm2pyro import logs
from cm2pyro.config import Config
from cm2pyro.errors import ConfigError
from cm2pyro.files import read_text, write_text
from cm2pyro.inference import distributed
from cm2pyro.inference.ensemble import MEMBERS
from cm2pyro.inference.fit import Record, Report
from cm2pyro.inference.run import TRACKED, best_record, flat, versions
from cm2pyro.registry import one_line
from cm2pyro.trackers import TRACKERS
from cm2pyro.trackers.base import Run, Tracker

_MOST_BYTES = 1 << 20


class Tracking:
    """Hands a fit's epochs to its trackers. One that fails is dropped with a warning.

    Args:
        config: `fit.trackers` names those that are made. given: further ones. folder: the run's, or None. say: takes the warnings.

    Raises:
        ConfigError: an unknown name, a package that is not installed, or a tracker that writes files where there is no folder.
    """

    def __init__(self, config: Config, given: Sequence[Tracker], folder: Path | None, say: Callable[[str], None]) -> None:
        self.config, self.folder, self.say = config, folder, say
        trackers = {name: _make(name) for name in config.fit.trackers}
        for tracker in given:
            name = type(tracker).__name__
            trackers[name if name not in trackers else f"{name}_{len(trackers) + 1}"] = tracker
        for name, tracker in trackers.items():
            if tracker.places and folder is None:
                raise ConfigError(f"tracker {name}: writes into the run folder, and this fit is kept in memory; pass out=, or leave it out")
        self.trackers = trackers if distributed.first() else {}
        self.told: dict[str, list[int]] = {}  # tracker -> epochs that it has been told, by member
        self.ids: dict[str, str | None] = {}
        self.records: list[list[Record]] = []  # by member

    @contextmanager
    def fit(self, device: str, resumed: bool) -> Iterator[None]:
        """Start the trackers; finish them when the block ends, in whichever way."""
        environment = versions() | {"device": device}
        self._each(lambda name: self._start(name, environment, resumed))
        try:
            yield
        except BaseException:
            self._each(lambda name: self.trackers[name].finish(None))
            raise
        best = best_record(self.records[0]) if self.records else None
        values = {f"best/{name}": value for name, value in _numbers(best or {}).items()}
        self._each(lambda name: self.trackers[name].finish(values))

    def member(self, records: list[Record], report: Report | None) -> Report:
        """What the next member of the ensemble is to report to: its epochs so far, `records`, are told where they have not been."""
        self.records.append(list(records))
        self._each(self._tell)

        def told(record: Record, warnings: list[str]) -> None:
            self.records[-1].append(record)
            self._each(self._tell)
            if report is not None:
                report(record, warnings)

        return told

    def _start(self, name: str, environment: dict[str, Any], resumed: bool) -> None:
        self.ids[name], self.told[name] = self._read(name) if resumed else (None, [])
        home = "CM2" if self.folder is None else self.folder.resolve().name
        place = None if self.folder is None else self.folder / TRACKED / name
        run = Run(home, place, flat(self.config.to_dict()), environment, self.ids[name], sum(self.told[name]))
        self.ids[name] = self.trackers[name].start(run)
        self._write(name)

    def _tell(self, name: str) -> None:
        """The epochs of the last member that the tracker has not been told."""
        member, told = len(self.records), self.told[name]
        told += [0] * (member - len(told))
        prefix = "" if member == 1 else f"{MEMBERS}/{member}/"
        for record in self.records[-1][told[member - 1] :]:
            step = sum(told) + 1
            self.trackers[name].epoch(step, {prefix + key: value for key, value in _numbers(record).items()})
            told[member - 1] += 1
            self._write(name)

    def _each(self, act: Callable[[str], None]) -> None:
        state = random.getstate()  # names of runs are drawn from it, and a fit is to have the same bits with trackers and without
        for name in list(self.trackers):
            try:
                act(name)
            except Exception as error:
                del self.trackers[name]
                kind, remedy = type(error).__name__, "" if self.folder is None else "; a later --resume tells it what it has missed"
                self.say(f"warning: tracker {name} failed ({kind}: {one_line(error)}); the fit goes on without it{remedy}")
                logs.event("tracker", logging.WARNING, tracker=name, kind=kind)
        random.setstate(state)

    # --- where each stands --------------------------------------------------------------------------------------------

    def _write(self, name: str) -> None:
        if self.folder is not None:
            (self.folder / TRACKED).mkdir(exist_ok=True)
            write_text(self.folder / TRACKED / f"{name}.json", json.dumps({"id": self.ids[name], "told": self.told[name]}))

    def _read(self, name: str) -> tuple[str | None, list[int]]:
        """Where the tracker stood when the fit was cut; at the beginning if it did not track then."""
        try:
            found = json.loads(read_text(self.folder / TRACKED / f"{name}.json", _MOST_BYTES)) if self.folder is not None else {}
            return None if found["id"] is None else str(found["id"]), [int(told) for told in found["told"]]
        except (OSError, ValueError, KeyError, TypeError):
            return None, []


def _make(name: str) -> Tracker:
    tracker = TRACKERS.get(name, "fit.trackers")
    if tracker.package is not None and importlib.util.find_spec(tracker.package) is None:
        raise ConfigError(f"fit.trackers: {name} needs the package {tracker.package}; pip install 'cm2pyro[{name}]'")
    return tracker()


def _numbers(record: Record) -> dict[str, float]:
    """The numbers of a record, `tau/a~b` for those of a mapping; what is None is left out."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            found |= {f"{name}/{inner}": number for inner, number in _numbers(value).items()}
        elif isinstance(value, int | float):
            found[name] = value
    return found
