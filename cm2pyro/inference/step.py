"""One gradient step: taken if everything in it is finite, else left out as if it had not been."""

import math
import warnings

import torch
from torch import Tensor, nn

from cm2pyro.config import Config, Fit
from cm2pyro.data.dataset import Batch
from cm2pyro.inference import distributed, finite, monitor
from cm2pyro.inference.program import Program, Terms
from cm2pyro.noise import uniform_like


def make_optimiser(config: Config, program: Program) -> torch.optim.AdamW:
    """AdamW; each group's own learning rate is its `peak`."""
    # A regression's observation scale is global too: at the encoders' pace a short fit would end with intervals far too wide.
    decayed, global_parameters = program.regularised(), [*program.guide.globals.parameters(), *program.model.observation_scales()]
    taken = {id(p) for p in (*decayed, *global_parameters)}
    others = [p for p in program.parameters() if id(p) not in taken]
    fit = config.fit
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": fit.weight_decay, "peak": fit.lr},
            {"params": others, "weight_decay": 0.0, "peak": fit.lr},
            {"params": global_parameters, "weight_decay": 0.0, "peak": fit.global_lr or 10 * fit.lr},
        ],
        lr=fit.lr,
    )


def schedule(fit: Fit, step: int, total: int) -> float:
    """Share of the peak learning rates at a step of so many in all, see `fit.schedule`."""
    return 1.0 if fit.schedule == "constant" else 0.5 * (1 + math.cos(math.pi * min(step / total, 1.0)))


def hide_some(batch: Batch, chance: float) -> Batch:
    """Hide each observed modality with this chance; a row that would lose everything keeps what it has."""
    # On the host: what follows from it need not wait for a device.
    seen = batch.mask if batch.whole is None else batch.whole
    drawn = uniform_like(seen.float(), 0) if batch.whole is None else torch.rand(seen.shape)
    kept = seen & (drawn >= chance)
    return batch.hiding(torch.where(kept.any(1, keepdim=True), kept, seen))


class Objective(nn.Module):
    """What a step descends on: −ELBO per sample of the data set, plus penalties."""

    def __init__(self, config: Config, program: Program) -> None:
        super().__init__()
        self.config, self.program = config, program

    def forward(self, batch: Batch) -> Tensor:
        loss = self.program.loss(batch)
        if self.config.fit.l1:
            loss = loss + self.config.fit.l1 * self.program.l1().to(loss.device)
        return loss


def take_step(
    config: Config, program: Program, optimiser: torch.optim.Optimizer, batch: Batch, rate: float
) -> tuple[Terms, float | None] | str:
    """Take a step at `rate` times the peak learning rates.

    Returns:
        the ELBO's terms and the norm of the copula's gradient; or, if loss or gradient was not finite, what it was: weights, optimiser
        and running statistics are then what they were before.
    """
    if config.fit.modality_dropout:
        batch = hide_some(batch, config.fit.modality_dropout)
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * rate
    optimiser.zero_grad(set_to_none=True)
    # Running statistics move with the forward pass, before anybody knows whether it is finite.
    buffers: list[tuple[Tensor, Tensor]] = [(buffer, buffer.clone()) for buffer in program.buffers()]
    found = _gradients(program.objective or Objective(config, program), program, batch)
    if isinstance(found, str):
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        return found
    torch.nn.utils.clip_grad_norm_(program.parameters(), config.fit.clip)
    optimiser.step()
    distributed.merge(buffers)
    return found[0].over_processes(), found[1]


def _gradients(objective: nn.Module, program: Program, batch: Batch) -> tuple[Terms, float | None] | str:
    """Compute the gradient of the loss: terms of this process and norm as in `take_step`, or what is not finite.

    All that a step must know of its numbers is read at once, so that it waits for a device once; several processes settle before the
    backward pass, in which each waits for the others, whether all go there.
    """
    errors = (ValueError, torch.linalg.LinAlgError)  # Pyro's checks name the site whose value left its support
    loss, found = None, None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered")  # of Pyro, a line a site; what is not finite is said below
        try:
            loss = objective(batch)
            if distributed.world() > 1 and not bool(torch.isfinite(loss)):
                found = finite.culprit(program, loss)
        except errors as error:
            found = finite.culprit_of(program, error)
        found = distributed.any_of(found)
        if found is not None or loss is None:
            return found or "loss"
        try:
            loss.backward()
        except errors as error:
            return finite.culprit_of(program, error)
    gradients, copula = finite.norms(program), monitor.copula_gradient(program)
    every = torch.isfinite(torch.cat([gradients, loss.detach()[None]])).all()
    known = torch.stack([every.to(loss.dtype), gradients.norm(), loss.new_zeros(()) if copula is None else copula])
    good, norm, own, *sums = torch.cat([known, program.term_sums()]).detach().cpu().tolist()
    if not good:
        return finite.culprit(program, loss)
    if not math.isfinite(norm):  # every entry is, their squares are not: nothing would be left of the others
        return "the gradient's norm is not finite"
    return program.read_terms(sums, batch), None if copula is None else own
