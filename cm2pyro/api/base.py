"""What every part of the user-facing object shares: config, preparation, fitted programs."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cm2pyro.config import Config
from cm2pyro.config_file import apply_override
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.manifest import Manifest
from cm2pyro.data.missingness import Mechanism
from cm2pyro.data.prepared import Preparation
from cm2pyro.diagnostics import typicality
from cm2pyro.distributions import CopulaMixture
from cm2pyro.encoders import Modules, check_encoders
from cm2pyro.errors import CheckpointError, ConfigError, DataError
from cm2pyro.inference import distributed
from cm2pyro.inference.predict import predict
from cm2pyro.inference.program import Program
from cm2pyro.inference.recalibration import Recalibration, Recalibrator, check_recalibration, check_rows
from cm2pyro.inference.snapshots import Snapshots
from cm2pyro.models import Given, check_model

Source: TypeAlias = str | Path | pd.DataFrame
Say = Callable[[str], None]


def silent(line: str) -> None:
    """Drop a line."""


class Base:
    """Config, what was learned from the training data, and the fitted programs. See `CM2`."""

    def __init__(self, config: Config, say: Say = silent, encoders: Modules | None = None, priors: Given | None = None) -> None:
        self.encoders = dict(encoders or {})
        self.priors = dict(priors or {})
        views = check_encoders(config, self.encoders)
        check_model(config, self.priors)
        check_recalibration(config.fit.recalibration, config.task.type)
        if config.missingness.mask is not None:
            Mechanism.parse(config.missingness.mask, tuple(config.modalities), "missingness.mask")
        self.config = config
        self.say = say if distributed.first() else silent
        self.preparation = Preparation.from_config(config, views)
        self._programs: list[Program] = []
        self.history: list[dict[str, Any]] = []
        self.snapshots = Snapshots()
        self.reference: typicality.Reference | None = None
        self.recalibration: Recalibration | None = None
        self.holdout: dict[str, list[str]] = {}
        self.mask: pd.DataFrame | None = None

    @classmethod
    def from_config(
        cls,
        config: str | Path | dict[str, Any] | Config,
        say: Say = silent,
        overrides: tuple[str, ...] = (),
        encoders: Modules | None = None,
        priors: Given | None = None,
    ) -> Self:
        """From a YAML file, a dict or a Config. Raises ConfigError, one line.

        Args:
            overrides: `a.b=c`, as with --set. encoders: modality -> any module that maps the first view of its kind (for
                a time series (n, T, 2V), see `TimeSeries`; for tables and vectors (n, F)) to features (n, width). It takes
                the place of the config's encoder, and `load` needs it again.
            priors: site -> a Pyro distribution, or a callable from the site's shape to one, in place of the config's; see
                `site_priors` for sites, shapes and supports. `load` needs them again.
        """
        if isinstance(config, dict):
            raw = copy.deepcopy(config)
            for override in overrides:
                apply_override(raw, override)
            config = Config.from_dict(raw)
        elif not isinstance(config, Config):
            try:
                return cls(Config.from_file(config, overrides), say, encoders, priors)
            except ConfigError as error:  # what is found when encoders and priors are made does not know the file
                if str(config) in str(error):
                    raise
                raise type(error)(f"{config}: {error}") from error
        return cls(config, say, encoders, priors)

    @property
    def programs(self) -> list[Program]:
        """Model and guide of every member of the ensemble; of a single fit one. Raises CheckpointError before a fit."""
        if not self._programs:
            raise CheckpointError("this CM2 has not been fitted; call fit(), or CM2.load() a run")
        return self._programs

    @property
    def program(self) -> Program:
        """Model and guide, of an ensemble those of the first member. Raises CheckpointError before a fit."""
        return self.programs[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities, in the order of the config."""
        return self.preparation.names

    @property
    def classes(self) -> tuple[str, ...]:
        return self.preparation.classes

    def mixture(self) -> CopulaMixture:
        """The learned copula mixture over the latents; of an ensemble that of the first member, whose latents are its own."""
        return self.program.mixture()

    def _recalibrate(self, dataset: Dataset, method: str, draws: int = 100) -> Recalibration:
        dataset = dataset.take(dataset.labelled.nonzero()[:, 0].tolist())
        check_rows(dataset.labels.numpy())
        prediction = predict(self.programs, dataset, draws, self.config.fit.seed)
        made = self.recalibration = Recalibration.fit(method, self.config.task.type, prediction.mean, dataset.labels.numpy())
        self.say(f"recalibration {method} on {made.rows} rows: log-loss {made.log_loss['before']:.4f} to {made.log_loss['after']:.4f}")
        return made

    @property
    def _map(self) -> Recalibrator | None:
        return None if self.recalibration is None else self.recalibration.recalibrator

    def _rows(self, manifest: Manifest, split: str | None) -> Manifest:
        if split is None:
            self.say(f"every row of {manifest.name} ({len(manifest)})")
            return manifest
        rows = manifest.rows(split)
        if not rows:
            raise DataError(f"{manifest.name}: no row has split '{split}'; choose another --split or leave it out")
        self.say(f"{len(rows)} rows with split '{split}' of {manifest.name}")
        return manifest.take(rows)

    def _dataset(self, manifest: Manifest, labels: bool | None = None) -> Dataset:
        """The rows as the fit prepared its own. labels: whether they are read; None: if their columns are there."""
        if labels is None:
            labels = all(column in manifest.frame for column in self.config.task.columns)
        dataset = self.preparation.transform(manifest, labels=labels)
        self._say_remarks()
        return dataset

    def _splits(self, manifest: Manifest) -> NDArray[np.str_]:
        """(N,) the split of every row, "" where the manifest does not say."""
        splits = manifest.frame["split"].to_numpy(dtype=str) if "split" in manifest.frame else np.full(len(manifest), "")
        # What a fit held out of the split `train` stopped it, as rows of `val` do.
        return np.where(np.isin(manifest.ids, self.holdout.get("samples", [])), "val", splits)

    def _say_unlabelled(self, unlabelled: int, total: int, name: str) -> None:
        """Raises DataError where no row has a label."""
        if unlabelled == total:
            columns = "', '".join(self.config.task.columns)
            raise DataError(f"{name}: none of the {total} rows has a label in '{columns}'; evaluate needs some")
        if unlabelled:
            self.say(f"{unlabelled} rows without a label are left out")

    def _say_remarks(self) -> None:
        for remark in self.preparation.remarks:
            self.say(remark)
        self.preparation.remarks.clear()
