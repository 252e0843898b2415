"""Settings proposed by Optuna's TPE sampler; its storage lets several processes and machines work on one study."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cm2pyro.errors import CM2Error, ConfigError, DataError
from cm2pyro.registry import one_line
from cm2pyro.sweep.space import Axis, Choice
from cm2pyro.sweep.table import Entry

if TYPE_CHECKING:
    import optuna

_SETTING, _TRIALS, _RECORDS = "setting", "trials", "records"


def check_installed() -> None:
    """Raises ConfigError where Optuna is not there."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ConfigError("--sampler optuna: Optuna is not installed; pip install 'cm2pyro[optuna]', or take --sampler random") from error


class Study:
    """A study in a storage.

    Args:
        axes: what is varied. storage: a URL of SQLAlchemy, such as sqlite:///sweep.db. name: of the study; the same name is joined.
        seed: of the proposals. trials: of the study, by all who work on it.

    Raises:
        DataError: the storage cannot be opened.
    """

    def __init__(self, axes: Sequence[Axis], storage: str, name: str, seed: int, trials: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna, self.axes, self.storage, self.name = optuna, axes, storage, name
        self.seed, self.most = seed, trials
        with _refusing(ConfigError, storage):
            self.study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True, direction="maximize")

    def ask(self) -> Entry | None:
        """A new setting; None when the study has as many as were asked for."""
        with warnings.catch_warnings(), _refusing(DataError, self.storage):
            warnings.simplefilter("ignore")
            if len(self.study.get_trials(deepcopy=False)) >= self.most:
                return None
            trial = self.study.ask()
            # A sampler a trial: proposals are the same whatever was interrupted, and no two processes start with the same draws.
            seed = (self.seed * 1_000_003 + trial.number) % 2**32
            self.study.sampler = self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)
            setting = {axis.key: self._suggest(trial, axis) for axis in self.axes}
            trial.set_user_attr(_SETTING, setting)
        return Entry(setting, number=trial.number)

    def _suggest(self, trial: optuna.Trial, axis: Axis) -> Any:
        if isinstance(axis, Choice):
            # By text, since Optuna takes no lists and mappings.
            return json.loads(trial.suggest_categorical(axis.key, [json.dumps(value) for value in axis.values]))
        if axis.whole:
            return trial.suggest_int(axis.key, round(axis.low), round(axis.high), log=axis.log)
        return axis.round(trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log))

    def tell(self, entry: Entry, score: float) -> None:
        """What a setting has reached, greater is better; NaN: it failed."""
        assert entry.number is not None
        trial = self.study.get_trials(deepcopy=False)[entry.number]
        if trial.state.is_finished():
            return
        with _refusing(DataError, self.storage):
            own = self._optuna.trial.Trial(self.study, trial._trial_id)
            own.set_user_attr(_TRIALS, {str(seed): folder for seed, folder in entry.trials.items()})
            own.set_user_attr(_RECORDS, {str(seed): record for seed, record in entry.records.items()})
            state = self._optuna.trial.TrialState
            failed = not math.isfinite(score)
            self.study.tell(entry.number, None if failed else score, state=state.FAIL if failed else state.COMPLETE)

    def others(self, ours: set[int]) -> Iterator[Entry]:
        """Finished settings that are not among these numbers."""
        for trial in self.study.get_trials(deepcopy=False):
            attributes = trial.user_attrs
            if trial.number not in ours and trial.state.is_finished() and _RECORDS in attributes:
                trials, records = ({int(seed): part for seed, part in attributes[key].items()} for key in (_TRIALS, _RECORDS))
                yield Entry(dict(attributes[_SETTING]), trials, records, trial.number, ours=False)


@contextmanager
def _refusing(kind: type[CM2Error], storage: str) -> Iterator[None]:
    """Says in one line what a storage could not do."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, ImportError) and type(error).__module__.split(".")[0] not in ("optuna", "sqlalchemy", "sqlite3"):
            raise
        reason = one_line(str(error).splitlines()[0] if str(error) else type(error).__name__, 160)
        remedy = "expected a URL such as sqlite:///sweep.db, which can be opened and written; mend it"
        raise kind(f"--storage {one_line(storage, 120)}: {reason}; {remedy}") from error
