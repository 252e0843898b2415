"""Fitting."""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from cm2pyro import logs
from cm2pyro.api.base import Source
from cm2pyro.api.stored import Stored
from cm2pyro.api.streamed import Streamed
from cm2pyro.config import Config
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.data.missingness import hide_for_fit, mask_table
from cm2pyro.data.shards.index import is_shards
from cm2pyro.data.splits import training_rows
from cm2pyro.diagnostics import typicality
from cm2pyro.encoders import check_weights
from cm2pyro.errors import CheckpointError, ConfigError, DataError
from cm2pyro.inference import checkpoint, distributed, run
from cm2pyro.inference.chains import draw_chains
from cm2pyro.inference.device import check_compiler, compile_encoders, compiling, deterministic, pick_device
from cm2pyro.inference.ensemble import member_configs, member_folder
from cm2pyro.inference.fit import Report, Rows, Trainer
from cm2pyro.inference.interrupt import Stop, signals
from cm2pyro.inference.monitor import pairwise_tau
from cm2pyro.inference.program import Program
from cm2pyro.inference.recalibration import NONE, check_rows
from cm2pyro.trackers.base import Tracker
from cm2pyro.trackers.tracking import Tracking


class Fitted(Streamed, Stored):
    """A model that can be fitted. See `CM2`."""

    def fit(
        self,
        data: Source,
        out: str | Path | None = None,
        device: str = "auto",
        resume: bool = False,
        overwrite: bool = False,
        report: Report | None = None,
        trackers: Sequence[Tracker] = (),
    ) -> Self:
        """Fit on the rows whose split is `train`, with early stopping on `val`.

        Without `val` rows a share of the training subjects, `fit.validation`, is held out, and their ids are kept in the run. Where
        it is 0 the fit runs all its epochs.

        Args:
            data: a manifest file, a DataFrame, or a folder of shards, which is streamed (docs/scaling.md). out: run folder; None keeps
                everything in memory.
            device: auto, cpu or cuda. report: called after every epoch with its record and new warnings.
            trackers: told of the fit as it goes, beside those of `fit.trackers`; see `cm2pyro.trackers`.
            resume: go on from the last checkpoint in `out`; a fit that was cut before its first begins anew. In the main thread a fit with
                a run folder ends on SIGTERM or SIGINT after its step, with a checkpoint.

        Raises:
            ConfigError, DataError, CheckpointError, StoppedError: one line each.
        """
        chosen = pick_device(device)
        if out is None:
            if resume:
                raise ConfigError("resume: needs the run folder; pass out=")
            with deterministic(self.config.fit.deterministic), compiling():
                self._fit(data, None, chosen, resume, report, Tracking(self.config, trackers, None, self.say))
            return self
        folder, writes = Path(out), distributed.first()
        tracking = Tracking(self.config, trackers, folder, self.say)
        existed = distributed.from_first(folder.exists)
        try:
            distributed.from_first(lambda: run.check_folder(folder, resume, overwrite))
            with run.locked(folder) if writes else nullcontext(), signals() as stop, logs.into(folder) if writes else nullcontext():
                # What a killed fit left without a checkpoint is nothing to go on from.
                going_on = resume and distributed.from_first(lambda: checkpoint.begun(folder))
                with deterministic(self.config.fit.deterministic), compiling():
                    self._fit(data, folder, chosen, going_on, report, tracking, overwrite or resume, stop)
        except (ConfigError, DataError, CheckpointError):
            if writes:
                run.remove_if_empty(folder, existed)
            raise
        return self

    def _fit(
        self,
        data: Source,
        folder: Path | None,
        device: torch.device,
        resume: bool,
        report: Report | None,
        tracking: Tracking,
        overwrite: bool = False,
        stop: Stop | None = None,
    ) -> None:
        check_weights(self.config)
        check_compiler(self.config.fit, device)
        if distributed.world() > 1 and self.config.guide.globals == "nuts":
            raise ConfigError("guide.globals: nuts draws its chains in one process; fit without torchrun, or change guide.globals")
        held: set[str] = set()
        if folder is not None and resume:
            held = set(distributed.from_first(lambda: run.read_holdout(folder)).get("subjects", []))
        train_set, val_set = self._streamed_sets(data, held) if is_shards(data) else self._sets(data, held)
        if resume and folder is not None:
            distributed.from_first(lambda: run.check_resumable(folder, self.config, self._state(), self.mask))
        self.recalibration = None
        if self.config.fit.recalibration != NONE:  # refused before the fit
            check_rows(val_set.labels.numpy())
        configs = member_configs(self.config)
        # Modules given from Python belong to the first member: the others train copies of them as they came.
        encoders = [self.encoders, *(copy.deepcopy(self.encoders) for _ in configs[1:])]
        self._programs = [self._new_program(configs[0], encoders[0], device)]
        self._describe(train_set, val_set)
        if folder is not None:
            # Only now, with config and data found good by all, is an earlier run replaced.
            distributed.most(0)
            distributed.from_first(lambda: self._make_room(folder, len(configs), device, resume, overwrite))
        logs.event("fit", **run.versions(), device=str(device), resumed=resume, **self._described(train_set, val_set))
        with tracking.fit(str(device), resume):
            for i, config in enumerate(configs):
                if len(configs) > 1:
                    logs.event("member", number=i + 1, of=len(configs), seed=config.fit.seed)
                    self.say(f"member {i + 1} of {len(configs)}, seed {config.fit.seed}")
                if i:
                    self._programs.append(self._new_program(config, encoders[i], device))
                place = None if folder is None else member_folder(folder, i)
                if config.fit.compile:
                    compile_encoders(self._programs[i].guide.encoders())
                trainer = Trainer(config, self._programs[i], train_set, val_set, place, stop)
                if resume and place is not None and distributed.from_first(partial(checkpoint.begun, place)):
                    self._resume(trainer)
                else:
                    trainer.start()
                trainer.run(tracking.member(trainer.records, report))
                if i == 0:
                    self.history, self.snapshots = trainer.records, trainer.snapshots
                if isinstance(train_set, Dataset) and config.guide.globals == "nuts":
                    self._sample(self._programs[i], config, train_set, place)
            self._finish(train_set, val_set, folder)
        logs.event("end", members=len(self._programs), epochs=len(self.history))

    def _resume(self, trainer: Trainer) -> None:
        damaged = trainer.resume()
        if damaged is not None:
            self.say(f"warning: {damaged}; it goes on from the one before")
        after = f", batch {trainer.progress.batch}" if trainer.progress.batch else ""
        self.say(f"resuming after epoch {trainer.progress.epoch}{after}")

    def _finish(self, train: Rows, val: Dataset, folder: Path | None) -> None:
        """What is computed from the final weights."""
        if self.config.prior.copula.update == "ifm":
            found = ", ".join(f"{pair} {tau:.3f}" for pair, tau in pairwise_tau(self.mixture(), self.names).items())
            self.say(f"second step: Kendall's tau {found}")
        self.reference = typicality.Reference.of(self.program, val if len(val) else train.pilot)
        if self.config.fit.recalibration != NONE:
            self._recalibrate(val, self.config.fit.recalibration)
        if folder is not None and distributed.first():
            self._write_results(folder)

    def _make_room(self, folder: Path, members: int, device: torch.device, resume: bool, overwrite: bool) -> None:
        """Write what is known before the first epoch, or put the folder in order for a fit that goes on."""
        if resume:
            for i in range(members):
                if checkpoint.begun(member_folder(folder, i)):
                    checkpoint.read_latest(member_folder(folder, i))  # refused before anything is changed
            run.tidy(folder)
            self.config.to_file(folder / run.CONFIG)
            run.drop_results(folder)
        else:
            run.clear(folder, overwrite)
            run.write_setup(folder, self.config, self._state(), self.holdout, str(device), self.preparation.tokenizers())
            run.write_mask(folder, self.mask)

    def _sets(self, data: Source, held: set[str]) -> tuple[Dataset, Dataset]:
        """Training and validation rows, in memory."""
        manifest = read_manifest(data)
        manifest.require(["split", "subject_id", *self.config.task.columns], "a fit needs it")
        train, val = self._split(manifest, held)
        used = manifest.take([*train, *val])
        dataset = self._hidden(self.preparation.fit(used, np.arange(len(train))), len(train))
        return dataset.take(range(len(train))), dataset.take(range(len(train), len(dataset)))

    def _sample(self, program: Program, config: Config, train: Dataset, folder: Path | None) -> None:
        nuts = config.nuts  # said before, since it can take longer than all epochs
        self.say(f"NUTS: {nuts.chains} chains of {nuts.draws} draws after {nuts.warmup} of warm-up, encoders held")
        program.chains = made = draw_chains(program, config, train, folder)
        divergent = sum(made.divergences)
        if divergent:
            remedy = "try nuts.target_accept nearer to 1, or tighter priors"
            self.say(f"warning: {divergent} of {made.draws} transitions of NUTS diverged; {remedy}")

    def _hidden(self, dataset: Dataset, train: int) -> Dataset:
        """The rows of a fit, the training rows first, under `missingness.mask`."""
        mechanism, self.mask = self.config.missingness.mask, None
        if mechanism is None:
            return dataset
        dataset, line = hide_for_fit(dataset, mechanism, self.config.fit.seed, train)
        self.mask = mask_table(dataset, dataset.observed.numpy())
        self.say(line)
        return dataset

    def _split(self, manifest: Manifest, held: set[str]) -> tuple[list[int], list[int]]:
        train, val, held_out = training_rows(manifest, self.config.fit.seed, self.config.fit.validation, held, self.config.task.columns)
        self.holdout = {"subjects": held_out, "samples": [manifest.ids[i] for i in val] if held_out else []}
        if held_out:
            self.say(f"no row has split 'val': {len(held_out)} training subjects ({len(val)} rows) are held out for validation")
        return train, val

    def _described(self, train: Rows, val: Dataset) -> dict[str, Any]:
        """What the log says of config and data: numbers and names of the config, nothing that the data hold."""
        observed = dict(zip(self.names, train.observed_share(), strict=True))
        counts = {"train_rows": len(train), "val_rows": len(val), "unlabelled": train.unlabelled()}
        return {"config": self.config.to_dict(), "modules": sorted(self.encoders), "observed": observed} | counts

    def _describe(self, train: Rows, val: Dataset) -> None:
        share = ", ".join(f"{name} {value:.0%}" for name, value in zip(self.names, train.observed_share(), strict=True))
        self.say(f"train {len(train)} rows, val {len(val)}; observed in train: {share}")
        unlabelled = train.unlabelled()
        if unlabelled:
            self.say(f"{unlabelled} training rows have no label: they inform the latents only")
        with_label = int(val.labelled.sum())
        if with_label < len(val):
            stop = f"only these {with_label} stop the fit" if with_label else "every epoch is run"
            self.say(f"{with_label} of {len(val)} validation rows have a label: {stop}")
        self._say_remarks()
        for name, encoder in zip(self.names, self.program.guide.encoders(), strict=True):
            for line in encoder.remarks:
                self.say(f"modality {name}: encoder {line}")
        if self.program.model.missingness is not None:
            self.say(
                "the selection model is identified by its assumption alone: no data can tell whether missingness depends on latents so"
            )
