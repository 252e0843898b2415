"""Stochastic variational inference: epochs, early stopping, checkpoints."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cm2pyro import sites
from cm2pyro.config import Config
from cm2pyro.data.dataset import Batch, Dataset
from cm2pyro.errors import CheckpointError, CM2Error
from cm2pyro.inference import checkpoint, monitor
from cm2pyro.inference.checkpoint import Progress
from cm2pyro.inference.maximise import maximise
from cm2pyro.inference.program import Program
from cm2pyro.inference.run import write_history
from cm2pyro.inference.snapshots import Snapshots
from cm2pyro.inference.start import standard_values, start_values
from cm2pyro.inference.validate import validate

Record = dict[str, Any]
Report = Callable[[Record, list[str]], None]
_PILOT = 4096  # rows that place the mixture, where encoding all would take as long as an epoch


class Trainer:
    """Fits a program.

    The objective is −ELBO per sample, plus an L1 penalty on first layers where asked. The weights that are validated,
    kept as best and predicted with are their exponential average where `fit.ema` is set.

    Args:
        train, val: data sets; an empty or unlabelled `val` means no early stopping. folder: for checkpoints, or None.
    """

    def __init__(self, config: Config, program: Program, train: Dataset, val: Dataset, folder: Path | None) -> None:
        self.config, self.program, self.train, self.val, self.folder = config, program, train, val, folder
        self.device = next(program.parameters()).device
        self.progress = Progress()
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
        program.apart = update == "ifm"
        # A regression's observation scale is global too: at the encoders' pace a short fit would end with intervals far too wide.
        decayed, global_parameters = program.regularised(), [*program.guide.globals.parameters(), *program.model.noise()]
        taken = {id(p) for p in (*decayed, *global_parameters)}
        others = [p for p in program.parameters() if id(p) not in taken]
        fit = config.fit
        self.optimiser = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": fit.weight_decay, "peak": fit.lr},
                {"params": others, "weight_decay": 0.0, "peak": fit.lr},
                {"params": global_parameters, "weight_decay": 0.0, "peak": fit.global_lr or 10 * fit.lr},
            ],
            lr=fit.lr,
        )
        self.average = {name: tensor.detach().clone() for name, tensor in program.state_dict().items()}
        self.best: dict[str, Tensor] = dict(self.average)
        self._warned: set[str] = set()

    def start(self) -> None:
        """Place the mixture on the latents as they are now; the optimiser forgets what it knew of the global sites."""
        if self.progress.epoch == 0:
            self.program.model.decoders.fit(self.train)
        if self.progress.epoch == 0 and self.config.guide.local == "delta":
            # Normalised latents need their running statistics before the first latents mean anything.
            self.program.train()
            with torch.no_grad():
                for batch in self.train.batches(512):
                    self.program.guide.represent(batch.to(self.device))
        self.program.start(self._start_values())
        for parameter in self.program.guide.globals.parameters():
            self.optimiser.state.pop(parameter, None)
        for name, tensor in self.program.state_dict().items():
            if self.progress.epoch == 0 or name.startswith("guide.globals."):
                self.average[name] = tensor.detach().clone()
        if self.progress.epoch == 0:
            self.best = dict(self.average)
            self.snapshots.take(self.program, 0)

    def _start_values(self) -> dict[str, Tensor]:
        structure, fit = self.program.structure, self.config.fit
        if self.standard:
            return {name: value.to(self.device) for name, value in standard_values(structure).items()}
        pilot = monitor.sample(self.program, self.train, _PILOT)
        return start_values(structure, monitor.latents(self.program, pilot), pilot.observed.to(self.device), fit.restarts, fit.seed)

    def run(self, report: Report | None = None) -> None:
        """Fit until the epochs or the patience are used up, then leave the best weights in the program."""
        while not self.progress.done:
            record, found = self._epoch()
            self.records.append(record)
            best_now = self._judge(record["val_log_loss"])
            if self.folder is not None:
                self._save(best_now)
            if report is not None:
                report(record, found)
        given = all(encoder.given for encoder in self.program.guide.encoders())
        if given:
            # Early stopping guards the outcome. Latents that are given do not move, and what describes them is estimated by all epochs.
            described = ("guide.globals.", "guide.treat.", "model.missingness.")
            self.best |= {name: tensor for name, tensor in self.average.items() if name.startswith(described)}
        self.program.load_state_dict(self.best)
        two_steps = self.config.prior.copula.update == "ifm"
        if two_steps:
            self.program.apart = False
            self._second_step({sites.WEIGHTS, *self.held})
        settles = self.config.fit.settle and not self.standard
        if settles:
            self._second_step(set(self.program.model.priors))
        if two_steps or settles:
            self.best = {name: tensor.detach().clone() for name, tensor in self.program.state_dict().items()}
        if given or two_steps or settles:
            self._save_best()

    def _second_step(self, names: set[str]) -> None:
        """With encoders and the other global sites as they are, maximise the mixture's likelihood over these, on a draw of the latents."""
        fit = self.config.fit
        z = monitor.latents(self.program, self.train, seed=fit.seed)
        observed = self.train.observed.to(self.device)
        values, _ = maximise(self.program.structure, self.program.model.priors, self.program.values(), names, z, observed, seed=fit.seed)
        self.program.start({name: values[name] for name in names})
        for name, tensor in self.program.guide.globals.state_dict().items():
            if any(held in name for held in names):
                self.average[f"guide.globals.{name}"].copy_(tensor)

    def _epoch(self) -> tuple[Record, list[str]]:
        started, fit = time.perf_counter(), self.config.fit
        self.program.train()
        # The order depends on seed and epoch alone, so that a resumed fit sees the same batches.
        order = torch.Generator().manual_seed(fit.seed * 1_000_003 + self.progress.epoch)
        outcome, features, missingness, seen, gradients = 0.0, 0.0, 0.0, 0, []
        kl = dict.fromkeys(self.train.names, 0.0)
        for batch in self.train.batches(fit.batch_size, order):
            terms, gradient = self._step(batch.to(self.device))
            share = len(batch)
            outcome += terms.outcome * share
            features += terms.features * share
            missingness += (terms.missingness or 0.0) * share
            kl = {name: value + terms.kl[name] * share for name, value in kl.items()}
            seen += share
            gradients += [] if gradient is None else [gradient]
        self.progress.epoch += 1
        if self.progress.epoch == fit.warmup:
            self.start()
        if self.config.prior.copula.update == "profile":
            self._second_step(self.held)
        outcome, features, missingness = outcome / seen, features / seen, missingness / seen
        kl = {name: value / seen for name, value in kl.items()}
        with self._averaged():
            log_loss, auroc = validate(self.program, self.val, fit.seed)
            state = monitor.health(self.program, self.train)
            self.snapshots.take(self.program, self.progress.epoch)
        total = sum(kl.values())
        record: Record = {
            "epoch": self.progress.epoch,
            "elbo": outcome + features + missingness - fit.beta * total,
            "outcome": outcome,
            "features": features,
            "kl": total,
            "val_log_loss": log_loss,
            "val_auroc": auroc,
            "effective_components": state.effective_components,
            "tau": state.tau,
            "kl_per_modality": kl,
            "latent_sd": {name: value if math.isfinite(value) else None for name, value in state.latent_sd.items()},
            "copula_gradient": float(np.mean(gradients)) if gradients else None,
            "seconds": round(time.perf_counter() - started, 3),
        }
        if self.program.model.missingness is not None:
            record["missingness"] = missingness
        found = monitor.warnings(self.config, self.progress.epoch, state, kl, record["copula_gradient"])
        fresh = [message for key, message in found.items() if key not in self._warned]
        self._warned |= set(found)
        return record, fresh

    def _step(self, batch: Batch) -> tuple[Any, float | None]:
        fit = self.config.fit
        if fit.modality_dropout:
            kept = batch.observed & (torch.rand(batch.observed.shape, device=self.device) >= fit.modality_dropout)
            # A row that would lose everything keeps what it has.
            batch = batch.hiding(torch.where(kept.any(1, keepdim=True), kept, batch.observed))
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * self._schedule()
        self.optimiser.zero_grad(set_to_none=True)
        try:
            loss = self.program.loss(batch)
        except ValueError as error:  # Pyro's validation names the site whose value left its support
            raise CM2Error(self._not_finite(str(error).splitlines()[0])) from error
        if fit.l1:
            loss = loss + fit.l1 * self.program.l1().to(self.device)
        loss.backward()
        gradient = monitor.copula_gradient(self.program)
        norm = torch.nn.utils.clip_grad_norm_(self.program.parameters(), fit.clip)
        if not math.isfinite(float(loss.detach())) or not math.isfinite(float(norm)):
            raise CM2Error(self._not_finite(f"loss {float(loss.detach()):.3g}, gradient norm {float(norm):.3g}"))
        self.optimiser.step()
        self.progress.step += 1
        self._follow()
        return self.program.terms(batch), gradient

    def _not_finite(self, found: str) -> str:
        return (
            f"epoch {self.progress.epoch + 1}: the fit is no longer finite ({found.rstrip(':')}); expected finite numbers; "
            "lower fit.lr, or look for extreme values in the data"
        )

    def _schedule(self) -> float:
        """Share of the peak learning rate at this step."""
        fit = self.config.fit
        if fit.schedule == "constant":
            return 1.0
        total = fit.epochs * self._steps
        return 0.5 * (1 + math.cos(math.pi * min(self.progress.step / total, 1.0)))

    @property
    def _steps(self) -> int:
        """Optimiser steps of an epoch."""
        return math.ceil(len(self.train) / self.config.fit.batch_size)

    def _follow(self) -> None:
        """Move the average towards the weights; early steps weigh more, so that the start is forgotten."""
        step = self.progress.step
        decay = min(self.config.fit.ema, (1 + step) / (10 + step))
        if decay == 0 and step % self._steps:
            return  # then it is the weights themselves, and they are read at the end of an epoch alone
        with torch.no_grad():
            for name, tensor in self.program.state_dict().items():
                if tensor.is_floating_point():
                    self.average[name].lerp_(tensor, 1 - decay)
                else:
                    self.average[name].copy_(tensor)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in the program, for as long as the block runs."""
        own = {name: tensor.detach().clone() for name, tensor in self.program.state_dict().items()}
        self.program.load_state_dict(self.average)
        try:
            yield
        finally:
            self.program.load_state_dict(own)

    def _judge(self, log_loss: float | None) -> bool:
        """Update best, patience and end; whether this epoch is the best so far."""
        progress, fit = self.progress, self.config.fit
        better = log_loss is None or progress.best is None or log_loss < progress.best
        if better:
            progress.best, progress.best_epoch, progress.waited = log_loss, progress.epoch, 0
            self.best = {name: tensor.clone() for name, tensor in self.average.items()}
        else:
            progress.waited += 1
        progress.done = progress.epoch >= fit.epochs or progress.waited >= fit.patience
        return better

    # --- checkpoints --------------------------------------------------------------------------------------------

    def _save(self, best_now: bool) -> None:
        folder = self.folder
        if folder is None:
            return
        if best_now:
            self._save_best()
        tensors = checkpoint.with_prefix("program", self.program.state_dict())
        tensors |= checkpoint.with_prefix("average", self.average)
        tensors |= checkpoint.with_prefix("optimiser", checkpoint.optimiser_tensors(self.optimiser))
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        self.snapshots.write(folder)
        # The last checkpoint is written after the others: a fit that is cut between them repeats one epoch.
        header = {"progress": asdict(self.progress), "records": self.records, "warned": sorted(self._warned)}
        checkpoint.write(checkpoint.last(folder), tensors, header)
        write_history(folder, self.records)

    def _save_best(self) -> None:
        if self.folder is not None:
            header = {"epoch": self.progress.best_epoch, "apart": self.program.apart, "architectures": self.program.architectures()}
            checkpoint.write(checkpoint.best(self.folder), self.best, header)

    def resume(self) -> None:
        """Go on from the folder's last checkpoint. Raises CheckpointError."""
        if self.folder is None:
            raise CheckpointError("resume: this fit has no run folder; pass out=")
        path = checkpoint.last(self.folder)
        tensors, header = checkpoint.read(path)
        try:
            self.progress, self.records = Progress(**header["progress"]), header["records"]
            self._warned = set(header["warned"])
            checkpoint.load_module(self.program, checkpoint.part(tensors, "program"), path)
            self.average = {name: tensor.to(self.device) for name, tensor in checkpoint.part(tensors, "average").items()}
            checkpoint.load_optimiser(self.optimiser, checkpoint.part(tensors, "optimiser"))
            torch.set_rng_state(tensors["random.cpu"])
            if self.device.type == "cuda" and "random.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: lacks what a fit needs to go on ({error!r}); fit again with --overwrite") from error
        self.snapshots.read(self.folder, self.progress.epoch)
        best, _ = checkpoint.read(checkpoint.best(self.folder))
        self.best = {name: tensor.to(self.device) for name, tensor in best.items()}
        # More epochs than before, or more patience, may have been asked for.
        self.progress.done = self.progress.epoch >= self.config.fit.epochs or self.progress.waited >= self.config.fit.patience
