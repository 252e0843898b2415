"""The user-facing object: it knows files and frames, the rest of the package knows tensors."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import pandas as pd
import torch
import xarray as xr

from cm2pyro.config import Config
from cm2pyro.config_file import apply_override
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.data.missingness import Mechanism, hide, hide_for_fit, mask_table
from cm2pyro.data.prepared import Preparation
from cm2pyro.data.splits import training_rows
from cm2pyro.data.subgroups import group_rows, read_column
from cm2pyro.diagnostics import summary, typicality
from cm2pyro.diagnostics.challenge import check_challenge
from cm2pyro.diagnostics.evaluation import Evaluation
from cm2pyro.diagnostics.latents import to_xarray
from cm2pyro.diagnostics.sensitivity import Sensitivity, Shift, check_delta
from cm2pyro.distributions import CopulaMixture
from cm2pyro.encoders import Modules, Restored, check_encoders, check_weights
from cm2pyro.errors import CheckpointError, ConfigError, DataError
from cm2pyro.files import write_text
from cm2pyro.inference import checkpoint, run
from cm2pyro.inference.device import pick_device
from cm2pyro.inference.draws import Alteration
from cm2pyro.inference.ensemble import member_configs, member_folder
from cm2pyro.inference.family_posterior import FamilyPosterior, family_posterior
from cm2pyro.inference.fit import Report, Trainer
from cm2pyro.inference.frame import prediction_columns, report_columns
from cm2pyro.inference.impute import impute
from cm2pyro.inference.monitor import latents, pairwise_tau
from cm2pyro.inference.predict import Prediction, predict
from cm2pyro.inference.program import Program
from cm2pyro.inference.recalibration import NONE, Recalibration, Recalibrator, check_recalibration, check_rows
from cm2pyro.inference.variance import Decomposition, VarianceSplit
from cm2pyro.models import check_model

Source: TypeAlias = str | Path | pd.DataFrame
Say = Callable[[str], None]


def _silent(line: str) -> None:
    """Drop a line."""


class CM2:
    """A copula mixture over the latents of a patient's modalities, with a guide that reads whichever are there.

    Make one with `from_config` and `fit` it, or `load` a run. `say` receives lines of plain text about what was done
    with the data; by default they are dropped.
    """

    def __init__(self, config: Config, say: Say = _silent, encoders: Modules | None = None) -> None:
        self.encoders = dict(encoders or {})
        views = check_encoders(config, self.encoders)
        check_model(config)
        check_recalibration(config.fit.recalibration, config.task.type)
        if config.missingness.mask is not None:
            Mechanism.parse(config.missingness.mask, tuple(config.modalities), "missingness.mask")
        self.config = config
        self.say = say
        self.preparation = Preparation.from_config(config, views)
        self._programs: list[Program] = []
        self.history: list[dict[str, Any]] = []
        self.reference: typicality.Reference | None = None
        self.recalibration: Recalibration | None = None
        self.holdout: dict[str, list[str]] = {}
        self.mask: pd.DataFrame | None = None

    @classmethod
    def from_config(
        cls,
        config: str | Path | dict[str, Any] | Config,
        say: Say = _silent,
        overrides: tuple[str, ...] = (),
        encoders: Modules | None = None,
    ) -> Self:
        """From a YAML file, a dict or a Config. Raises ConfigError, one line.

        Args:
            overrides: `a.b=c`, as with --set. encoders: modality -> any module that maps the first view of its kind (for
                a time series (n, T, 2V), see `TimeSeries`; for tables and vectors (n, F)) to features (n, width). It takes
                the place of the config's encoder, and `load` needs it again.
        """
        if isinstance(config, dict):
            raw = copy.deepcopy(config)
            for override in overrides:
                apply_override(raw, override)
            config = Config.from_dict(raw)
        elif not isinstance(config, Config):
            config = Config.from_file(config, overrides)
        return cls(config, say, encoders)

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

    # --- fit ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        data: Source,
        out: str | Path | None = None,
        device: str = "auto",
        resume: bool = False,
        overwrite: bool = False,
        report: Report | None = None,
    ) -> Self:
        """Fit on the rows whose split is `train`, with early stopping on `val`.

        Without `val` rows a share of the training subjects, `fit.validation`, is held out, and their ids are kept in the run. Where
        it is 0 the fit runs all its epochs.

        Args:
            data: a manifest file, or a DataFrame. out: run folder; None keeps everything in memory.
            device: auto, cpu or cuda. report: called after every epoch with its record and new warnings.

        Raises:
            ConfigError, DataError, CheckpointError: one line each.
        """
        chosen = pick_device(device)
        if out is None:
            if resume:
                raise ConfigError("resume: needs the run folder; pass out=")
            self._fit(data, None, chosen, resume, report)
            return self
        folder = Path(out)
        existed = folder.exists()
        try:
            run.check_folder(folder, resume, overwrite)
            with run.locked(folder):
                self._fit(data, folder, chosen, resume, report, overwrite)
        except (ConfigError, DataError, CheckpointError):
            run.remove_if_empty(folder, existed)
            raise
        return self

    def _fit(
        self, data: Source, folder: Path | None, device: torch.device, resume: bool, report: Report | None, overwrite: bool = False
    ) -> None:
        check_weights(self.config)
        manifest = read_manifest(data)
        manifest.require(["split", "subject_id", *self.config.task.columns], "a fit needs it")
        train, val = self._split(manifest, folder if resume else None)
        used = manifest.take([*train, *val])
        dataset = self._hidden(self.preparation.fit(used, np.arange(len(train))), len(train))
        if resume and folder is not None:
            run.check_resumable(folder, self.config, self._state(), self.mask)
        train_set, val_set = dataset.take(range(len(train))), dataset.take(range(len(train), len(dataset)))
        self.recalibration = None
        if self.config.fit.recalibration != NONE:  # refused before the fit
            check_rows(val_set.labels.numpy())
        configs = member_configs(self.config)
        # Modules given from Python belong to the first member: the others train copies of them as they came.
        encoders = [self.encoders, *(copy.deepcopy(self.encoders) for _ in configs[1:])]
        self._programs = [self._new_program(configs[0], encoders[0], device)]
        self._describe(train_set, val_set)
        if folder is not None and resume:
            self.config.to_file(folder / run.CONFIG)
            run.drop_results(folder)
        elif folder is not None:
            # Only now, with config and data found good, is an earlier run replaced.
            run.clear(folder, overwrite)
            run.write_setup(folder, self.config, self._state(), self.holdout, str(device), self.preparation.tokenizers())
            run.write_mask(folder, self.mask)
        for i, config in enumerate(configs):
            if len(configs) > 1:
                self.say(f"member {i + 1} of {len(configs)}, seed {config.fit.seed}")
            if i:
                self._programs.append(self._new_program(config, encoders[i], device))
            place = None if folder is None else member_folder(folder, i)
            trainer = Trainer(config, self._programs[i], train_set, val_set, place)
            if resume and place is not None and (i == 0 or checkpoint.last(place).is_file()):
                trainer.resume()
                self.say(f"resuming after epoch {trainer.progress.epoch}")
            else:
                trainer.start()
            trainer.run(report)
            if i == 0:
                self.history = trainer.records
        if self.config.prior.copula.update == "ifm":
            found = ", ".join(f"{pair} {tau:.3f}" for pair, tau in pairwise_tau(self.mixture(), self.names).items())
            self.say(f"second step: Kendall's tau {found}")
        self.reference = typicality.Reference.of(self.program, val_set if len(val_set) else train_set)
        if self.config.fit.recalibration != NONE:
            self._recalibrate(val_set, self.config.fit.recalibration)
        if folder is not None:
            self._write_results(folder)

    def _write_results(self, folder: Path) -> None:
        if self.reference is not None:
            self.reference.write(folder)
        if self.recalibration is not None:
            self.recalibration.write(folder)
        summary.write(folder, self.mixture(), self.preparation)

    def _hidden(self, dataset: Dataset, train: int) -> Dataset:
        """The rows of a fit, the training rows first, under `missingness.mask`."""
        mechanism, self.mask = self.config.missingness.mask, None
        if mechanism is None:
            return dataset
        dataset, line = hide_for_fit(dataset, mechanism, self.config.fit.seed, train)
        self.mask = mask_table(dataset, dataset.observed.numpy())
        self.say(line)
        return dataset

    def _new_program(self, config: Config, encoders: Modules, device: torch.device, restored: Restored | None = None) -> Program:
        torch.manual_seed(config.fit.seed)
        shapes = {name: kind.shapes() for name, kind in self.preparation.kinds.items()}
        with device:  # priors are made where the fit runs
            return Program(config, shapes, len(self.classes), encoders, restored).to(device)

    def _state(self) -> dict[str, Any]:
        return self.preparation.state() | {"encoders": sorted(self.encoders)}

    def _split(self, manifest: Manifest, resumed: Path | None) -> tuple[list[int], list[int]]:
        held = None if resumed is None else set(run.read_json(resumed / run.HOLDOUT).get("subjects", []))
        train, val, held_out = training_rows(manifest, self.config.fit.seed, self.config.fit.validation, held, self.config.task.columns)
        self.holdout = {"subjects": held_out, "samples": [manifest.ids[i] for i in val] if held_out else []}
        if held_out:
            self.say(f"no row has split 'val': {len(held_out)} training subjects ({len(val)} rows) are held out for validation")
        return train, val

    def _describe(self, train: Dataset, val: Dataset) -> None:
        share = ", ".join(f"{name} {value:.0%}" for name, value in zip(self.names, train.observed.float().mean(0).tolist(), strict=True))
        self.say(f"train {len(train)} rows, val {len(val)}; observed in train: {share}")
        unlabelled = int((~train.labelled).sum())
        if unlabelled:
            self.say(f"{unlabelled} training rows have no label: they inform the latents only")
        with_label = int(val.labelled.sum())
        if with_label < len(val):
            stop = f"only these {with_label} stop the fit" if with_label else "every epoch is run"
            self.say(f"{with_label} of {len(val)} validation rows have a label: {stop}")
        self._say_notes()
        for name, encoder in zip(self.names, self.program.guide.encoders(), strict=True):
            for line in encoder.said:
                self.say(f"modality {name}: encoder {line}")
        if self.program.model.missingness is not None:
            self.say(
                "the selection model is identified by its assumption alone: no data can tell whether missingness depends on latents so"
            )

    # --- use ----------------------------------------------------------------------------------------------------

    def predict(self, data: Source, draws: int = 100, split: str | None = None) -> pd.DataFrame:
        """Posterior predictive per row, with the columns of predictions.csv.

        Args:
            data: a manifest; labels, splits, subjects and whole modalities may be absent. draws: of the latents.
            split: only these rows; by default every row.
        """
        programs, dataset = self.programs, self._unlabelled(data, draws, split)
        split_variance = VarianceSplit(programs, draws, self.config.fit.seed, self._map)
        prediction = predict(programs, dataset, draws, self.config.fit.seed, recalibrate=self._map, also=split_variance.add)
        return self._frame(dataset, prediction, split_variance.result())

    def impute(self, data: Source, draws: int = 100, split: str | None = None) -> xr.Dataset:
        """Draws of every modality's latent: missing ones given the observed, observed ones from the encoders' posterior.

        Args:
            data: a manifest; labels, splits, subjects and whole modalities may be absent. draws: 1 or more.
            split: only these rows; by default every row.

        Returns:
            `z` (draw, sample_id, modality, latent) and `observed` (sample_id, modality), see `to_xarray`.
        """
        programs, dataset = self.programs, self._unlabelled(data, draws, split)
        attributes = {"draws": draws, "seed": self.config.fit.seed} | run.versions()
        return to_xarray(impute(programs, dataset, draws, self.config.fit.seed), dataset, len(programs), attributes)

    def _unlabelled(self, data: Source, draws: int, split: str | None) -> Dataset:
        if draws < 1:
            raise ConfigError(f"draws: found {draws}, expected 1 or more")
        dataset = self.preparation.transform(self._rows(read_manifest(data), split), labels=False)
        self._say_notes()
        return dataset

    def _rows(self, manifest: Manifest, split: str | None) -> Manifest:
        if split is None:
            self.say(f"every row of {manifest.name} ({len(manifest)})")
            return manifest
        rows = manifest.rows(split)
        if not rows:
            raise DataError(f"{manifest.name}: no row has split '{split}'; choose another --split or leave it out")
        self.say(f"{len(rows)} rows with split '{split}' of {manifest.name}")
        return manifest.take(rows)

    def _say_notes(self) -> None:
        for note in self.preparation.notes:
            self.say(note)
        self.preparation.notes.clear()

    def _frame(self, dataset: Dataset, prediction: Prediction, parts: Decomposition) -> pd.DataFrame:
        scaling, task = self.preparation.scaling, self.config.task.type
        prediction, parts = prediction.in_units(scaling), parts.in_units(scaling)
        columns: dict[str, Any] = {"sample_id": list(dataset.ids)}
        columns |= prediction_columns(task, self.classes, prediction)
        # A fit that was cut before its end has no reference yet.
        columns["typicality"] = np.nan if self.reference is None else self.reference.percentiles(self.program, dataset)
        seen = dataset.observed.numpy()
        columns["observed"] = [";".join(np.array(self.names)[row]) for row in seen]
        columns["missing"] = [";".join(np.array(self.names)[~row]) for row in seen]
        return pd.DataFrame(columns | report_columns(task, self.names, prediction, parts))

    def evaluate(
        self,
        data: Source,
        split: str | None = None,
        missing: tuple[str, ...] = (),
        bootstrap: int = 1000,
        draws: int = 100,
        patterns: bool = False,
        by: tuple[str, ...] = (),
        challenge: str | None = None,
        mask_seed: int | None = None,
        masks: str | Path | None = None,
        delta: Sequence[float] = (),
        threshold: float | None = None,
    ) -> Evaluation:
        """Metrics on labelled rows: those of `split`, else those with split `test` if there are any, else all.

        Args:
            missing: mechanisms (`mcar:0.5`, `mar:0.5@labs,gases`, `only:NAME` …, see `Mechanism`) under each of which the
                metrics are repeated.
            bootstrap: resamples of subjects for the 95% intervals. patterns: also per missingness pattern.
            by: columns, also per group of each: of the manifest, or `MODALITY.COLUMN` of a tabular modality; see `group_rows`.
            challenge: also the scores of a public challenge, see `diagnostics.challenge`.
            mask_seed: of the mechanisms, by default the run's. masks: a CSV file to which every mask is written.
            delta: also with missing latents shifted by these numbers of standard deviations, see `Sensitivity`; 0 is added.
            threshold: probability from which a decision is positive, for the tipping point; by default the prevalence.
        """
        seed = self.program.config.fit.seed
        event_threshold = None if self.recalibration is None else self.recalibration.threshold
        if challenge is not None:
            check_challenge(challenge, self.config.task.type, event_threshold)
        if delta:
            check_delta(delta, threshold, bootstrap, self.config.task.type)
        for mechanism in missing:  # refused before anything is read
            Mechanism.parse(mechanism, self.names)
        manifest = read_manifest(data)
        if split is None and manifest.rows("test"):
            split = "test"
        manifest = self._rows(manifest, split)
        cells = {column: read_column(manifest, self.preparation.kinds, column) for column in by}
        dataset = self.preparation.transform(manifest, labels=True)
        self._say_notes()
        labelled = dataset.labelled.nonzero()[:, 0].tolist()
        if not labelled:
            columns = "', '".join(self.config.task.columns)
            raise DataError(f"{manifest.name}: none of the {len(dataset)} rows has a label in '{columns}'; evaluate needs some")
        if len(labelled) < len(dataset):
            self.say(f"{len(dataset) - len(labelled)} rows without a label are left out")
        dataset = dataset.take(labelled)
        hidden = {mechanism: hide(dataset, mechanism, seed if mask_seed is None else mask_seed) for mechanism in missing}
        if masks is not None:
            every = {"as observed": dataset.observed.numpy()} | hidden
            write_text(masks, pd.concat([mask_table(dataset, mask, name) for name, mask in every.items()]).to_csv(index=False))
        result = self._evaluation(dataset, draws)
        groups = {column: group_rows(column_cells.iloc[labelled], column) for column, column_cells in cells.items()}
        asked = (bootstrap, seed, patterns, groups, challenge, event_threshold)
        result.metrics = result.measure(*asked)
        if delta:
            result.sensitivity = self._sensitivity(result, delta, threshold, bootstrap, draws)
            result.metrics["delta"] = result.sensitivity.metrics
        for mechanism, mask in hidden.items():
            masked = dataset.with_observed(torch.from_numpy(mask))
            result.metrics.setdefault("missing", {})[mechanism] = self._evaluation(masked, draws).measure(*asked)
        return result

    def _sensitivity(self, plain: Evaluation, delta: Sequence[float], threshold: float | None, bootstrap: int, draws: int) -> Sensitivity:
        shifts = {value: Shift(value) for value in delta if value}
        shifted = {value: self._evaluation(plain.dataset, draws, shift) for value, shift in shifts.items()}
        moved = {value: shift.logits for value, shift in shifts.items()}
        return Sensitivity.of(plain, shifted, moved, threshold, bootstrap, self.config.fit.seed)

    def _evaluation(self, dataset: Dataset, draws: int, alter: Alteration | None = None) -> Evaluation:
        prediction = predict(self.programs, dataset, draws, self.config.fit.seed, recalibrate=self._map, alter=alter)
        return Evaluation(self.config.task.type, self.classes, dataset, prediction, self.preparation.scaling)

    def recalibrate(self, data: Source, method: str = "temperature", split: str | None = None, draws: int = 100) -> Recalibration:
        """Fit a recalibration of this fit's probabilities in place of the one it has, see `inference.recalibration`; in memory.

        Args:
            data: a manifest with labels. method: temperature, isotonic, or none, which chooses the threshold alone.
            split: its rows; by default `val`, where there is none those that the fit held out.
        """
        check_recalibration(method, self.config.task.type)
        if self.config.task.type == "regression":
            raise ConfigError("recalibrate: maps probabilities, and the task of this run is regression; expected another task")
        manifest = read_manifest(data)
        held = set(self.holdout.get("samples", []))
        if split is None and not manifest.rows("val") and held.intersection(manifest.ids):
            manifest = manifest.take([i for i, name in enumerate(manifest.ids) if name in held])
            self.say(f"{len(manifest)} rows of {manifest.name} that the fit held out")
        else:
            manifest = self._rows(manifest, split or "val")
        dataset = self.preparation.transform(manifest, labels=True)
        self._say_notes()
        return self._recalibrate(dataset, method, draws)

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

    def mixture(self) -> CopulaMixture:
        """The learned copula mixture over the latents; of an ensemble that of the first member, whose latents are its own."""
        return self.program.mixture()

    def family_posterior(
        self, data: Source, families: Sequence[str], prior: dict[str, float] | None = None, split: str | None = "train"
    ) -> FamilyPosterior:
        """Which copula family the latents of this fit come from: every family fitted to the same latents, see `family_posterior`.

        Args:
            data: a manifest. families: two or more names. prior: family -> weight, equal if not given.
            split: only these rows; None for every row.
        """
        manifest = self._rows(read_manifest(data), split)
        dataset = self.preparation.transform(manifest, labels=False)
        self._say_notes()
        z = latents(self.program, dataset, seed=self.config.fit.seed)
        fit = self.config.fit
        return family_posterior(
            self.program.structure, z, dataset.observed.to(z.device), families, prior, self.config.priors, fit.restarts, fit.seed
        )

    # --- files --------------------------------------------------------------------------------------------------

    def save(self, out: str | Path, overwrite: bool = False) -> None:
        """Write a fit that was kept in memory as a run folder."""
        folder, programs = Path(out), self.programs
        run.check_folder(folder, resume=False, overwrite=overwrite)
        with run.locked(folder):
            run.clear(folder, overwrite)
            run.write_setup(
                folder, self.config, self._state(), self.holdout, str(next(programs[0].parameters()).device), self.preparation.tokenizers()
            )
            run.write_mask(folder, self.mask)
            for i, program in enumerate(programs):
                header = {"epoch": len(self.history), "architectures": program.architectures()}
                checkpoint.write(checkpoint.best(member_folder(folder, i)), program.state_dict(), header)
            run.write_history(folder, self.history)
            self._write_results(folder)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", say: Say = _silent, encoders: Modules | None = None) -> Self:
        """Read a run folder. Raises CheckpointError if it is none or incomplete.

        Args:
            encoders: the modules that the fit was given from Python, if any; their weights come from the run.
        """
        folder = Path(path)
        config, state = run.read_config(folder), run.read_json(folder / run.PREPROCESSING)
        absent = sorted(set(state.get("encoders", [])) - set(encoders or {}))
        if absent:
            raise CheckpointError(
                f"{folder}: modality {absent[0]} was fitted with a module given from Python; pass encoders={{'{absent[0]}': module}}"
            )
        try:
            loaded = cls(config, say, encoders)
        except ConfigError as error:
            raise CheckpointError(f"{folder / run.CONFIG}: {error}") from error
        loaded.preparation.load(state)
        chosen = pick_device(device)
        for i, member in enumerate(member_configs(config)):
            path = checkpoint.best(member_folder(folder, i))
            if i and not path.is_file():
                say(f"{folder}: holds {i} of {config.fit.ensemble} members, the fit was cut; their mean is used; fit --resume goes on")
                break
            tensors, header = checkpoint.read(path)
            program = loaded._new_program(
                member, copy.deepcopy(loaded.encoders) if i else loaded.encoders, chosen, header.get("architectures", {})
            )
            checkpoint.load_module(program, tensors, path)
            program.apart = bool(header.get("apart", False))  # a fit that was cut before its second step
            loaded._programs.append(program.eval())
        loaded.history = run.read_history(folder)
        loaded.reference = typicality.Reference.read(folder)
        loaded.recalibration = Recalibration.read(folder)
        loaded.holdout = run.read_json(folder / run.HOLDOUT)
        loaded.mask = run.read_mask(folder)
        return loaded
