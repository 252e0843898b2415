"""Stochastic variational inference: epochs, early stopping, checkpoints."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cm2pyro import logs, noise, sites
from cm2pyro.config import Config
from cm2pyro.data.dataset import Batch, Dataset
from cm2pyro.data.shards.dataset import StreamedDataset
from cm2pyro.errors import CheckpointError, CM2Error
from cm2pyro.inference import distributed, finite, monitor, state
from cm2pyro.inference.average import Average, current
from cm2pyro.inference.frozen import frozen_potential
from cm2pyro.inference.interrupt import Stop
from cm2pyro.inference.maximise import maximise
from cm2pyro.inference.program import Program
from cm2pyro.inference.progress import Progress
from cm2pyro.inference.refit_guide import refit_guide
from cm2pyro.inference.snapshots import Snapshots
from cm2pyro.inference.start import standard_values, start_values
from cm2pyro.inference.step import Objective, make_optimiser, schedule, take_step
from cm2pyro.inference.sums import Sums
from cm2pyro.inference.validate import validate

Record = dict[str, Any]
Report = Callable[[Record, list[str]], None]
Rows = Dataset | StreamedDataset
_PILOT = 4096  # rows that place the mixture, where encoding all would take as long as an epoch
_SKIPPED = 0.1  # of the steps of an epoch may be left out


class Trainer:
    """Fits a program.

    The objective is −ELBO per sample, plus an L1 penalty on first layers where asked. The weights that are validated,
    kept as best and predicted with are their exponential average where `fit.ema` is set.

    Args:
        train, val: data sets, the same in each of several processes; an empty or unlabelled `val` means no early stopping. What is asked
            of many training rows at once, such as where the mixture starts, is asked of `train.pilot`: of shards a random sample.
        folder: for checkpoints, which the first process writes, or None.
        stop: asks the fit to end after a step, with a checkpoint.
    """

    def __init__(self, config: Config, program: Program, train: Rows, val: Dataset, folder: Path | None, stop: Stop | None = None) -> None:
        self.config, self.program, self.train, self.val, self.folder = config, program, train, val, folder
        self.out = folder if distributed.first() else None
        self.device = next(program.parameters()).device
        self.stop = stop or Stop()
        self.progress, self.sums = Progress(), Sums()
        self.records: list[Record] = []
        self.snapshots = Snapshots()
        update, copula = config.prior.copula.update, set(program.structure.copula.priors())
        # What the second step sets, and gradient steps leave alone.
        self.held = {"joint": set(), "ifm": copula, "profile": copula | {sites.WEIGHTS}}[update]
        self.standard = config.prior.kind == "standard"
        if self.standard:
            self.held = {sites.WEIGHTS, sites.LOCS, sites.SCALES}
        if self.held:
            program.guide.globals.hold(self.held)
        program.margins_only = update == "ifm"
        if distributed.world() > 1:
            object.__setattr__(program, "objective", distributed.wrapped(Objective(config, program)))
        self.optimiser = make_optimiser(config, program)
        self.average = Average(program, config.fit.ema)
        self.best: dict[str, Tensor] = dict(self.average.tensors)
        self.warned: set[str] = set()
        self._resumed = self._saved = time.monotonic()

    def start(self) -> None:
        """Place the mixture on the latents as they are now; the optimiser forgets what it knew of the global sites."""
        if self.progress.epoch == 0:
            self.program.model.decoders.fit(self.train.pilot)
        if self.progress.epoch == 0 and self.config.guide.local == "delta":
            # Normalised latents need their running statistics before the first latents mean anything.
            self.program.train()
            with torch.no_grad():
                for batch in self.train.batches(512):
                    self.program.guide.represent(batch.to(self.device))
        self.program.start(self._start_values())
        distributed.equalise(self.program)
        for parameter in self.program.guide.globals.parameters():
            self.optimiser.state.pop(parameter, None)
        for name, tensor in self.program.state_dict().items():
            if self.progress.epoch == 0 or name.startswith("guide.globals."):
                self.average.tensors[name] = tensor.detach().clone()
        if self.progress.epoch == 0:
            self.best = dict(self.average.tensors)
            self.snapshots.take(self.program, 0)

    def _start_values(self) -> dict[str, Tensor]:
        structure, fit = self.program.structure, self.config.fit
        if self.standard:
            return {name: value.to(self.device) for name, value in standard_values(structure).items()}
        pilot = monitor.few_if_costly(self.program, self.train.pilot, _PILOT)
        return start_values(structure, monitor.latents(self.program, pilot), pilot.observed.to(self.device), fit.restarts, fit.seed)

    def run(self, report: Report | None = None) -> None:
        """Fit until the epochs or the patience are used up, then leave the best weights in the program."""
        with self.stop.after_the_step():
            while not self.progress.done:
                record, found = self._epoch()
                if report is not None and distributed.first():
                    report(record, found)
                if self._asked():
                    break
        object.__setattr__(self.program, "objective", None)
        if self.stop.asked is not None:
            raise self.stop.error(f"after epoch {self.progress.epoch}")
        self._finish()

    def _finish(self) -> None:
        """What follows the last epoch: the best weights, a second step for the copula, a mixture that settles on the latents."""
        given = all(encoder.given for encoder in self.program.guide.encoders())
        if given:
            # Early stopping guards the outcome. Latents that are given do not move, and what describes them is estimated by all epochs.
            described = ("guide.globals.", "guide.treat.", "model.missingness.")
            self.best |= {name: tensor for name, tensor in self.average.tensors.items() if name.startswith(described)}
        self.program.load_state_dict(self.best)
        two_steps = self.config.prior.copula.update == "ifm"
        if two_steps:
            self.program.margins_only = False
            self._second_step({sites.WEIGHTS, *self.held})
        settles = self.config.fit.settle and not self.standard
        if settles and self.config.guide.globals not in ("delta", "nuts"):
            self.program.settle()
            potential = frozen_potential(self.program, self.train.pilot, self.config.fit.seed, "fit.settle")
            refit_guide(self.program.global_guides, potential, self.program.values(), self.config.fit.seed)
        elif settles:
            self._second_step(set(self.program.model.priors))
        distributed.equalise(self.program)
        if two_steps or settles:
            self.best = current(self.program)
        if self.out is not None and (given or two_steps or settles):
            state.write_best(self, self.out)

    def _second_step(self, names: set[str]) -> None:
        """With encoders and the other global sites as they are, maximise the mixture's likelihood over these, on a draw of the latents."""
        fit = self.config.fit
        z = monitor.latents(self.program, self.train.pilot, seed=fit.seed)
        observed = self.train.pilot.observed.to(self.device)
        values, _ = maximise(self.program.structure, self.program.model.priors, self.program.values(), names, z, observed, seed=fit.seed)
        self.program.start({name: values[name] for name in names})
        distributed.equalise(self.program)
        for name, tensor in self.program.guide.globals.state_dict().items():
            if any(held in name for held in names):
                self.average.tensors[f"guide.globals.{name}"].copy_(tensor)

    # --- epochs -------------------------------------------------------------------------------------------------

    def _epoch(self) -> tuple[Record, list[str]]:
        """The rest of an epoch, and its checkpoint: the record, and warnings that are new."""
        self._resumed = time.monotonic()
        self._batches()
        record, found, log_loss = self._end_epoch()
        self.records.append(record)
        best_now = self.progress.judge(log_loss)
        if best_now:
            self.best = {name: tensor.clone() for name, tensor in self.average.tensors.items()}
        self.progress.judge_end(self.config.fit)
        if self.progress.done and not self.progress.best_epoch:
            raise CM2Error(f"after epoch {self.progress.epoch}: no epoch had a finite validation log-loss; {finite.REMEDY}")
        fresh = {key: message for key, message in found.items() if key not in self.warned}
        self.warned |= set(found)
        self.progress.batch, self.sums = 0, Sums()
        if self.out is not None:
            self._checkpoint(self.out)
            if best_now:
                state.write_best(self, self.out)
            state.write_views(self, self.out)
        logs.event("epoch", **record)
        for key, message in fresh.items():
            logs.event("warning", logging.WARNING, epoch=self.progress.epoch, about=key, message=message)
        return record, list(fresh.values())

    def _batches(self) -> None:
        fit = self.config.fit
        self.program.train()
        # The order depends on seed and epoch alone, so that a resumed fit sees the same batches.
        order = torch.Generator().manual_seed(fit.seed * 1_000_003 + self.progress.epoch)
        for batch in self.train.shares(fit.batch_size, order, self.progress.batch, distributed.rank(), distributed.world()):
            self._step(batch.to(self.device))
            self.progress.batch += 1
            self._between_steps()
        if distributed.world() > 1:  # of shards they may take more steps, or fewer, than one would
            self.average.end_epoch()
        if not self.sums.seen:
            raise CM2Error(self._not_finite("no step of the epoch was"))

    def _asked(self) -> bool:
        """Whether a signal has come to any process: all end after the same step."""
        self.stop.asked = distributed.most(self.stop.asked or 0) or None
        return self.stop.asked is not None

    def _between_steps(self) -> None:
        asked = self._asked()
        if self.out is not None and (asked or time.monotonic() - self._saved >= 60 * self.config.fit.checkpoint_minutes):
            self._checkpoint(self.out)
        if asked:
            raise self.stop.error(f"in epoch {self.progress.epoch + 1} after {self.progress.batch} of {self._steps} batches")

    def _end_epoch(self) -> tuple[Record, dict[str, str], float | None]:
        """What follows the last batch; the epoch's record, all warnings by their keys, the validation log-loss as it is."""
        fit, sums = self.config.fit, self.sums
        self.progress.epoch += 1
        if self.progress.epoch == fit.warmup:
            self.start()
        if self.config.prior.copula.update == "profile":
            self._second_step(self.held)
        finite.check(self.program.state_dict(), f"epoch {self.progress.epoch}")
        with self.average.applied():
            scores = validate(self.program, self.val, fit.seed)
            log_loss, auroc = distributed.from_first(lambda: scores)
            health = monitor.health(self.program, self.train.pilot)
            self.snapshots.take(self.program, self.progress.epoch)
        means = sums.means(fit.beta)
        missingness = means.pop("missingness")
        scored = log_loss is None or math.isfinite(log_loss)
        record: Record = {
            "epoch": self.progress.epoch,
            "val_log_loss": log_loss if scored else None,
            "val_auroc": auroc,
        }
        record |= asdict(health) | {"seconds": round(self.sums_so_far().seconds, 3)} | means
        if self.program.model.missingness is not None:
            record["missingness"] = missingness
        found = monitor.warnings(self.config, self.progress.epoch, health, means["kl_per_modality"], means["copula_gradient"])
        if not scored:
            found["validation"] = f"the validation log-loss of epoch {self.progress.epoch} is {log_loss}: it counts as worse than any other"
        if sums.skipped:
            record["skipped"] = sums.skipped
            found[f"skipped {self.progress.epoch}"] = (
                f"{sums.skipped} of {self._steps} steps of epoch {self.progress.epoch} were left out: their loss or gradient was not finite"
            )
        return logs.plain(record), found, log_loss

    # --- steps --------------------------------------------------------------------------------------------------

    def _step(self, batch: Batch) -> None:
        self.progress.step += 1
        with noise.shared(batch.share, self.device, self.config.fit.seed * 1_000_003 + self.progress.step):
            rate = schedule(self.config.fit, self.progress.step, self.config.fit.epochs * self._steps)
            taken = take_step(self.config, self.program, self.optimiser, batch, rate)
        if isinstance(taken, str):
            self._skip(taken)
        else:
            self.progress.skipped = 0
            self.sums.add(taken[0], len(batch) if batch.share is None else batch.share.of, taken[1])
        self.average.follow(self.progress.step, self._steps)

    def _skip(self, found: str) -> None:
        """Count a step that was left out; stop where that is no exception any more."""
        fit, progress = self.config.fit, self.progress
        progress.skipped += 1
        self.sums.skipped += 1
        logs.event("skip", logging.WARNING, epoch=progress.epoch + 1, batch=progress.batch + 1, in_a_row=progress.skipped, found=found)
        if progress.skipped > fit.skip or self.sums.skipped > max(fit.skip, _SKIPPED * self._steps):
            raise CM2Error(self._not_finite(found))

    def _not_finite(self, found: str) -> str:
        return (
            f"epoch {self.progress.epoch + 1}, batch {self.progress.batch + 1}: the fit is no longer finite ({found.rstrip(':')}); "
            f"expected finite numbers; {finite.REMEDY}"
        )

    @property
    def _steps(self) -> int:
        """Optimiser steps of an epoch."""
        return math.ceil(len(self.train) / self.config.fit.batch_size)

    # --- checkpoints --------------------------------------------------------------------------------------------

    def _checkpoint(self, folder: Path) -> None:
        state.write(self, folder)
        self._saved = time.monotonic()
        logs.event("checkpoint", epoch=self.progress.epoch, batch=self.progress.batch, step=self.progress.step)

    def sums_so_far(self) -> Sums:
        """The epoch's sums, with the seconds since it began or was resumed."""
        return replace(self.sums, seconds=self.sums.seconds + time.monotonic() - self._resumed)

    def resume(self) -> str | None:
        """Go on from the folder's last checkpoint that can be read; why that is not the last one, if so. Raises CheckpointError."""
        if self.folder is None:
            raise CheckpointError("resume: this fit has no run folder; pass out=")
        reason = state.read(self, self.folder)
        self.progress.judge_end(self.config.fit)
        return reason
