"""A sweep from beginning to end: its folder, its trials, the choice, and the test rows once the choice is clear."""

import hashlib
import json
import re
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cm2pyro.errors import CheckpointError, ConfigError, DataError
from cm2pyro.files import check_out_folder, write_text
from cm2pyro.inference.run import LOCK, locked, read_json
from cm2pyro.sweep import metrics
from cm2pyro.sweep.data import changed, check_rows, digests
from cm2pyro.sweep.experiment import Experiment
from cm2pyro.sweep.plots import draw
from cm2pyro.sweep.processes import Processes
from cm2pyro.sweep.space import Setting, describe
from cm2pyro.sweep.table import Entry, Record, Results
from cm2pyro.sweep.tpe import Study
from cm2pyro.sweep.trial import DONE, FAILED, Task, work

SWEEP, RESULTS, SETTINGS, BEST, FIGURES = "sweep.json", "results.csv", "settings.csv", "best.yaml", ("sweep.png", "sweep.pdf")
_TRIALS, STUDY = "trials", "optuna.db"
_STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)  # exit codes of trials that were asked to end

Say = Callable[[str], None]


@dataclass(frozen=True)
class Resources:
    """Where and how many at a time. threads: of each trial."""

    device: str = "auto"
    jobs: int = 1
    threads: int = 1


class Sweep:
    """Runs an experiment in a folder.

    Args:
        experiment: what is asked. data: the manifest or shards. out: the folder. resources: of its trials. say: receives a line a trial.
        test: the test rows are evaluated once the choice is made.

    Raises:
        ConfigError: nothing to choose or test by, found before the first fit.
    """

    def __init__(self, experiment: Experiment, data: str, out: str | Path, resources: Resources, say: Say, test: bool = False) -> None:
        self.experiment, self.data, self.out, self.resources, self.say, self.test = experiment, data, Path(out), resources, say, test
        self.digests = digests(data, experiment)
        self.entries: list[Entry] = []
        self._names: dict[str, str] = {}  # digest of a config -> name of its trial
        self._earlier: dict[str, Any] = {}  # sweep.json as it was
        self._users: dict[str, list[tuple[Entry, int]]] = {}  # folder of a trial -> settings and seeds that it is for
        self._records: dict[str, Record] = {}
        self._queue: deque[Task] = deque()
        check_rows(data, experiment, test)

    def check_folder(self, resume: bool, overwrite: bool) -> None:
        """Refuse a folder that would lose something; writes nothing. Raises ConfigError, CheckpointError."""
        if resume and overwrite:
            raise ConfigError("--resume and --overwrite: one goes on, the other starts anew; pass one of them")
        if resume:
            if not (self.out / SWEEP).is_file():
                raise CheckpointError(f"{self.out}: holds no sweep to resume ({SWEEP} is not there); run it without --resume")
            self._earlier = read_json(self.out / SWEEP)
            other = changed(self.data, self._earlier.get("data_sha256"), self.digests)
            if other is not None:
                raise DataError(f"--resume: {other} is not what the sweep in {self.out} was run on; give that, or start anew")
            self._names = self._earlier.get("trials", {})
            if not isinstance(self._names, dict) or not all(re.fullmatch(r"\d{4,}", str(name)) for name in self._names.values()):
                raise CheckpointError(
                    f"{self.out / SWEEP}: names of trials are not numbers, as a sweep writes them; start anew with --overwrite"
                )
        elif self.out.is_dir() and {child.name for child in self.out.iterdir()} != {LOCK}:
            if (self.out / SWEEP).is_file() and not overwrite:
                raise ConfigError(f"{self.out}: holds a sweep; pass --resume to go on, --overwrite to start anew, or name another folder")
            check_out_folder(self.out, overwrite, SWEEP)

    def run(
        self,
        settings: Sequence[Setting] | None,
        propose: Callable[[], Study] | None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> Results:
        """Fit every setting with every seed, unless that is done; choose; then evaluate the test rows, if that was asked for.

        Args:
            settings: all of them. propose: makes the study that proposes them one by one in their place.

        Raises:
            ConfigError, DataError, CheckpointError: before the first fit. StoppedError: asked to stop; `resume` goes on.
        """
        self.check_folder(resume, overwrite)
        for setting in settings or ():
            self.experiment.config(setting)
        existed = self.out.exists()
        with locked(self.out, "sweep"):
            study = self._begin(settings or (), propose, resume, existed)
            results = self._work(lambda: self._next(study), lambda task, code: self._ended(task, code, study), study)
            if self.test and results.chosen:
                names = "; ".join(describe(entry.setting) for entry in results.chosen)
                self.say(f"chosen on {metrics.SPLITS[metrics.VAL]}: {names}; now the test rows")
                self._queue.extend(self._untested())
                results = self._work(lambda: self._next(None), self._evaluated, study)
        return results

    def _begin(self, settings: Sequence[Setting], propose: Callable[[], Study] | None, resume: bool, existed: bool) -> Study | None:
        """Put the folder in order and take up the settings that are known. Killed at any point, it can be resumed or replaced."""
        if not resume:
            self._write_state(None)
            self._clear()
        try:
            study = None if propose is None else propose()
        except ConfigError:
            if not existed:
                shutil.rmtree(self.out, ignore_errors=True)
            raise
        (self.out / _TRIALS).mkdir(parents=True, exist_ok=True)
        for setting in settings:
            self._take_up(Entry(setting))
        if study is not None and self._earlier.get("study") == study.name:
            for line in self._earlier.get("settings", []):
                self._take_up(Entry(line["values"], number=line["number"]), study)
        self._write_state(study)
        self._say_plan(study)
        return study

    def _work(self, take: Callable[[], Task | None], ended: Callable[[Task, int], None], study: Study | None) -> Results:
        """Run what there is to run; what has been found is written, however that ends."""
        try:
            Processes(work, take, ended, self.resources.jobs).run()
        finally:
            results = self._write(study)
        return results

    def _take_up(self, entry: Entry, study: Study | None = None) -> None:
        """Give a setting's trials their folders; those without a good record wait to be run. Settings of one config share its trial."""
        self.entries.append(entry)
        for seed in self.experiment.seeds:
            try:
                config = self.experiment.config(entry.setting, seed).to_dict()
            except ConfigError as error:  # proposed values that do not go together; listed ones have been checked
                entry.records[seed] = {"status": FAILED, "reason": str(error)}
                continue
            key = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
            name = self._names.setdefault(key, f"{len(self._names) + 1:04}")
            folder = entry.trials[seed] = str(self.out / _TRIALS / name)
            users = self._users.setdefault(folder, [])
            users.append((entry, seed))
            if len(users) == 1:
                record = _read_record(folder)
                if record is not None and record["status"] == DONE:
                    self._records[folder] = record
                else:
                    self._queue.append(self._task(folder, config, anew=record is not None))
            if folder in self._records:
                entry.records[seed] = self._records[folder]
        self._tell(entry, study)

    def _task(self, folder: str, config: dict[str, Any], **kind: bool) -> Task:
        return Task(folder, config, self.data, self.resources.device, self.resources.threads, **kind)

    def _tell(self, entry: Entry, study: Study | None) -> None:
        if study is not None and entry.complete(self.experiment.seeds):
            study.tell(entry, entry.score(self.experiment.metric, self.experiment.seeds))

    def _next(self, study: Study | None) -> Task | None:
        while not self._queue:
            entry = None if study is None else study.ask()
            if entry is None:
                return None
            self._take_up(entry, study)
            self._write_state(study)
        task = self._queue.popleft()
        if not task.test:
            task.record.unlink(missing_ok=True)
        return task

    def _ended(self, task: Task, code: int, study: Study | None) -> None:
        record = _read_record(task.folder)
        if record is None:
            if code in _STOPPED:
                return
            died = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            record = {"status": FAILED, "reason": f"its process ended {died}, perhaps for want of memory; see {task.log.name}"}
            write_text(task.record, json.dumps(record) + "\n")
        self._records[task.folder] = record
        for entry, seed in self._users[task.folder]:
            entry.records[seed] = record
            self._tell(entry, study)
        entry, seed = self._users[task.folder][0]
        total = len(self._users) if study is None else max(len(self._users), study.most * len(self.experiment.seeds))
        self.say(f"[{len(self._records)}/{total}] {describe(entry.setting)}, seed {seed}: {self._found(entry, seed)}")

    def _found(self, entry: Entry, seed: int) -> str:
        record = entry.records[seed]
        if record["status"] == FAILED:
            return f"failed: {record['reason']}"
        names = dict.fromkeys([self.experiment.metric, *(f"{metrics.VAL}_{name}" for name in self.experiment.show)])
        return ", ".join(f"{name} {entry.value(name, seed):.4f}" for name in names) + f", {record['seconds']:.1f} s"

    def _untested(self) -> Iterator[Task]:
        for folder, record in self._records.items():
            if record["status"] == DONE and metrics.TEST not in record:
                entry, seed = self._users[folder][0]
                yield self._task(folder, self.experiment.config(entry.setting, seed).to_dict(), test=True)

    def _evaluated(self, task: Task, code: int) -> None:
        record = self._records[task.folder] = _read_record(task.folder) or self._records[task.folder]
        for entry, seed in self._users[task.folder]:
            entry.records[seed] = record
        if "test_reason" in record:
            self.say(f"{Path(task.folder).name}: test rows: {record['test_reason']}")

    def _say_plan(self, study: Study | None) -> None:
        waiting, seeds = len(self._queue), len(self.experiment.seeds)
        if study is None:
            what = f"{_count(len(self.entries), 'setting')}, {_count(seeds, 'seed')}: {_count(len(self._users), 'trial')}"
        else:
            what = f"up to {_count(study.most, 'setting')} of study {study.name}, {_count(seeds, 'seed')}"
        done = f"; {len(self._records)} are done" if self._records else ""
        again = f", {waiting} to run" if self._records and study is None else ""
        self.say(f"{what}, {self.resources.jobs} at a time{done}{again}")

    def _clear(self) -> None:
        """Take away an earlier sweep; a user's own files beside it stay."""
        for name in (RESULTS, SETTINGS, BEST, *FIGURES, STUDY):
            (self.out / name).unlink(missing_ok=True)
        shutil.rmtree(self.out / _TRIALS, ignore_errors=True)

    def _write_state(self, study: Study | None, chosen: Sequence[Entry] = ()) -> None:
        experiment = self.experiment
        state = {
            "experiment": experiment.title,
            "config": experiment.name,
            "data": self.data,
            "data_sha256": self.digests,
            "axes": [asdict(axis) for axis in experiment.axes],
            "seeds": list(experiment.seeds),
            "metric": experiment.metric,
            "study": None if study is None else study.name,
            "chosen": [entry.setting for entry in chosen],
            "settings": [{"values": entry.setting, "number": entry.number} for entry in self.entries],
            "trials": self._names,
        }
        write_text(self.out / SWEEP, json.dumps(state, indent=1) + "\n")

    def _write(self, study: Study | None) -> Results:
        """Tables, choice and picture of what is there; of a study those of the others who work on it too."""
        ours = {entry.number for entry in self.entries if entry.number is not None}
        results = Results(self.experiment, [*self.entries, *(study.others(ours) if study is not None else ())])
        self._write_state(study, results.chosen)
        if not any(entry.records for entry in results.entries):
            return results
        write_text(self.out / RESULTS, results.trials().to_csv(index=False, lineterminator="\n"))
        write_text(self.out / SETTINGS, results.settings().to_csv(index=False, lineterminator="\n"))
        for name in FIGURES if results.chosen else ():
            draw(results, self.out / name)
        (self.out / BEST).unlink(missing_ok=True)
        if len(results.chosen) == 1:
            self.experiment.config(results.chosen[0].setting, self.experiment.seeds[0]).to_file(self.out / BEST)
        return results


def study_name(experiment: Experiment, digests: dict[str, str]) -> str:
    """The same question on the same data is the same study, wherever it is asked."""
    asked = [experiment.base, [asdict(axis) for axis in experiment.axes], experiment.seeds, experiment.metric, digests]
    return f"cm2pyro-{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]}"


def _read_record(folder: str) -> Record | None:
    """What a trial's process left; None if there is nothing, or nothing that can be read."""
    try:
        record = read_json(Path(f"{folder}.json"))
    except CheckpointError:
        return None
    return record if record.get("status") in (DONE, FAILED) else None


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
