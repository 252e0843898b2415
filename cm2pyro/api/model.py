"""The user-facing object: it knows files and frames, the rest of the package knows tensors."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
import xarray as xr

from cm2pyro.api.base import Source
from cm2pyro.api.posterior import Posterior
from cm2pyro.api.priors import PriorChecks
from cm2pyro.api.streamed import EVALUATED
from cm2pyro.config import Config
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.data.missingness import Mechanism, hide, mask_table
from cm2pyro.data.shards.index import is_shards
from cm2pyro.data.subgroups import group_rows, read_column
from cm2pyro.diagnostics.challenge import check_challenge
from cm2pyro.diagnostics.evaluation import Evaluation, Measures
from cm2pyro.diagnostics.family_choice import FamilyChoice
from cm2pyro.diagnostics.latents import to_xarray
from cm2pyro.diagnostics.report import material
from cm2pyro.diagnostics.report.parts import Report, Section
from cm2pyro.diagnostics.resampling import subject_codes
from cm2pyro.diagnostics.sensitivity import Sensitivity, Shift, check_delta
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.files import write_text
from cm2pyro.inference import distributed
from cm2pyro.inference.draws import Alteration
from cm2pyro.inference.family_posterior import FamilyPosterior, family_posterior
from cm2pyro.inference.impute import impute
from cm2pyro.inference.monitor import latents
from cm2pyro.inference.predict import predict
from cm2pyro.inference.recalibration import Recalibration, check_recalibration
from cm2pyro.inference.run import versions
from cm2pyro.inference.select import Candidate, candidate_structures, margin_priors, select
from cm2pyro.inference.variance import VarianceSplit
from cm2pyro.models import make_structure


class CM2(Posterior, PriorChecks):
    """A copula mixture over the latents of a patient's modalities, with a guide that reads whichever are there.

    Make one with `from_config` and `fit` it, or `load` a run. `say` receives lines of plain text about what was done
    with the data; by default they are dropped.
    """

    def predict(self, data: Source, draws: int = 100, split: str | None = None) -> pd.DataFrame:
        """Posterior predictive per row, with the columns of predictions.csv.

        Args:
            data: a manifest, or a folder of shards (`predict_to` writes its predictions without holding them); labels, splits, subjects and
                whole modalities may be absent. draws: of the latents.
            split: only these rows; by default every row.
        """
        if is_shards(data):
            return pd.concat(list(self.predictions(data, draws, split)), ignore_index=True)
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
        attributes = {"draws": draws, "seed": self.config.fit.seed} | versions()
        return to_xarray(impute(programs, dataset, draws, self.config.fit.seed), dataset, len(programs), attributes)

    def _unlabelled(self, data: Source, draws: int, split: str | None) -> Dataset:
        if draws < 1:
            raise ConfigError(f"draws: found {draws}, expected 1 or more")
        return self._dataset(self._rows(read_manifest(data), split), labels=False)

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
        rows: int = EVALUATED,
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
            rows: of shards at most so many are evaluated, a random sample of subjects; `delta`, `masks`, mar and mnar need a manifest.
        """
        seed = self.program.config.fit.seed
        chosen = None if self.recalibration is None else self.recalibration.threshold
        if challenge is not None:
            check_challenge(challenge, self.config.task.type, chosen)
        asked = Measures(bootstrap, seed, patterns, challenge, chosen)
        if delta:
            check_delta(delta, threshold, bootstrap, self.config.task.type)
        for mechanism in missing:  # refused before anything is read
            Mechanism.parse(mechanism, self.names)
        if is_shards(data):
            for key, given in (("delta", bool(delta)), ("masks", masks is not None)):
                if given:
                    raise ConfigError(
                        f"{key}: needs all rows in memory, and the data are shards; give the manifest itself, or leave it out"
                    )
            return self._evaluate_shards(data, split, missing, draws, by, seed if mask_seed is None else mask_seed, rows, asked)
        manifest = read_manifest(data)
        if split is None and manifest.rows("test"):
            split = "test"
        manifest = self._rows(manifest, split)
        cells = {column: read_column(manifest, self.preparation.kinds, column) for column in by}
        dataset = self._dataset(manifest, labels=True)
        labelled = dataset.labelled.nonzero()[:, 0].tolist()
        self._say_unlabelled(len(dataset) - len(labelled), len(dataset), manifest.name)
        dataset = dataset.take(labelled)
        hidden = {mechanism: hide(dataset, mechanism, seed if mask_seed is None else mask_seed) for mechanism in missing}
        if masks is not None and distributed.first():
            every = {"as observed": dataset.observed.numpy()} | hidden
            write_text(masks, pd.concat([mask_table(dataset, mask, name) for name, mask in every.items()]).to_csv(index=False))
        result = self._evaluation(dataset, draws)
        groups = {column: group_rows(column_cells.iloc[labelled], column) for column, column_cells in cells.items()}
        result.metrics = result.measure(asked, groups)
        if delta:
            result.sensitivity = self._sensitivity(result, delta, threshold, bootstrap, draws)
            result.metrics["delta"] = result.sensitivity.metrics
        for mechanism, mask in hidden.items():
            masked = dataset.with_observed(torch.from_numpy(mask))
            result.metrics.setdefault("missing", {})[mechanism] = self._evaluation(masked, draws).measure(asked, groups)
        return result

    def _sensitivity(self, plain: Evaluation, delta: Sequence[float], threshold: float | None, bootstrap: int, draws: int) -> Sensitivity:
        shifts = {value: Shift(value) for value in delta if value}
        shifted = {value: self._evaluation(plain.dataset, draws, shift) for value, shift in shifts.items()}
        moved = {value: shift.logits for value, shift in shifts.items()}
        return Sensitivity.of(plain, shifted, moved, threshold, bootstrap, self.config.fit.seed)

    def _evaluation(self, dataset: Dataset, draws: int, alter: Alteration | None = None) -> Evaluation:
        prediction = predict(self.programs, dataset, draws, self.config.fit.seed, recalibrate=self._map, alter=alter)
        return Evaluation(self.config.task.type, self.classes, dataset, prediction, self.preparation.scaling)

    def report(self, data: Source, split: str | None = None, draws: int = 100, run: str = "CM2", further: Sequence[Section] = ()) -> Report:
        """What the fit has learned, what looks wrong, and what the data say to it; `diagnostics.report.page.write` makes it a page.

        Args:
            data: a manifest; labels, splits, subjects and whole modalities may be absent. split: only these rows; by default every row.
            draws: of the latents, for predictions. run: name in the heading. further: sections to add.
        """
        from cm2pyro.diagnostics.report.build import build  # draws; nothing else here waits for matplotlib

        programs = self.programs
        manifest = self._rows(read_manifest(data), split)
        if not len(manifest):
            raise DataError(f"{manifest.name}: has no rows; a report needs some")
        dataset = self._dataset(manifest)
        labelled = dataset.labelled.nonzero()[:, 0].numpy()
        evaluation = self._evaluation(dataset.take(labelled.tolist()), draws) if len(labelled) else None
        complete = self.reference is not None and len(programs) == self.config.fit.ensemble
        source = material.Source(run, Path(manifest.name).name, len(programs), complete, versions())
        gathered = material.gather(
            source, programs[0], dataset, self._splits(manifest), self.history, self.snapshots.values, self.classes, evaluation, labelled
        )
        return build(gathered, further)

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
        manifest = self._stopping(manifest) if split is None else self._rows(manifest, split)
        return self._recalibrate(self._dataset(manifest, labels=True), method, draws)

    def validate(self, data: Source, bootstrap: int = 0, draws: int = 100) -> Evaluation:
        """`evaluate` on the rows of `data` that stopped the fit, split `val` or those that it held out, under its `missingness.mask`."""
        if is_shards(data):
            return self.evaluate(data, "val", bootstrap=bootstrap, draws=draws)
        dataset = self._dataset(self._stopping(read_manifest(data)), labels=True)
        if self.mask is not None:
            kept = self.mask.set_index("sample_id").loc[list(dataset.ids), list(self.names)].to_numpy(dtype=bool)
            dataset = dataset.with_observed(dataset.observed & torch.tensor(kept))
        labelled = dataset.labelled.nonzero()[:, 0].tolist()
        if not labelled:
            raise DataError(f"{len(dataset)} validation rows have no label; expected some to be judged by; label them")
        result = self._evaluation(dataset.take(labelled), draws)
        result.metrics = result.measure(Measures(bootstrap, self.config.fit.seed))
        return result

    def _stopping(self, manifest: Manifest) -> Manifest:
        """The rows that stopped the fit: split `val`, or where there is none those that it held out."""
        held = set(self.holdout.get("samples", []))
        if manifest.rows("val") or not held.intersection(manifest.ids):
            return self._rows(manifest, "val")
        manifest = manifest.take([i for i, name in enumerate(manifest.ids) if name in held])
        self.say(f"{len(manifest)} rows of {manifest.name} that the fit held out")
        return manifest

    def family_posterior(
        self, data: Source, families: Sequence[str], prior: dict[str, float] | None = None, split: str | None = "train"
    ) -> FamilyPosterior:
        """Which copula family the latents of this fit come from: every family fitted to the same latents, see `family_posterior`.

        Args:
            data: a manifest. families: two or more names. prior: family -> weight, equal if not given.
            split: only these rows; None for every row.
        """
        dataset = self._dataset(self._rows(read_manifest(data), split), labels=False)
        z = latents(self.program, dataset, seed=self.config.fit.seed)
        fit = self.config.fit
        return family_posterior(
            self.program.structure, z, dataset.observed.to(z.device), families, prior, self.config.priors, fit.restarts, fit.seed
        )

    def select(
        self,
        data: Source,
        families: Sequence[str],
        components: Sequence[int] = (1, 2, 3, 4),
        split: str | None = "train",
        config: Config | None = None,
        folds: int = 10,
        report: Callable[[Candidate, float], None] | None = None,
    ) -> FamilyChoice:
        """Choose the copula family and the number of components for the latents of this fit, encoders frozen.

        Every family with every K is fitted to one draw of the latents (of an ensemble's first member) and judged by its elpd on
        subjects left out, see `inference.select` and `FamilyChoice`.

        Args:
            data: a manifest. families: names; `mixture` is of the others named. components: values of K. split: only these rows;
                None for every row. config: whose prior, priors, fit.restarts and fit.seed count, with this fit's modalities and latents;
                by default this fit's own. Priors given from Python go before the config's, those of the copula's sites left out. folds,
                report: see `inference.select`.

        Raises:
            ConfigError: nothing to choose from, an unknown family, a prior that does not fit a K, or a config of other modalities or
                latents. DataError: too few subjects.
        """
        config = self.config if config is None else config
        structure = make_structure(config)
        for candidate in candidate_structures(structure, families, components).values():  # refused before anything is read
            margin_priors(candidate, config.priors, self.priors)
        for key in ("modalities", "latent"):
            if getattr(config, key) != getattr(self.config, key):
                raise ConfigError(f"{key}: the config differs from the run, whose latents are used; expected the same; give one of the two")
        dataset = self._dataset(self._rows(read_manifest(data), split), labels=False)
        z = latents(self.program, dataset, seed=config.fit.seed)
        subjects = torch.from_numpy(subject_codes(dataset.subjects, len(dataset)))
        fit = config.fit
        settings = (subjects, config.priors, fit.restarts, fit.seed, folds, report, self.priors)
        found = select(structure, z, dataset.observed, families, components, *settings)
        return FamilyChoice.of(found, config, fit.seed)
