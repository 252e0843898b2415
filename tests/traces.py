"""The traces of model and guide on a batch, as the ELBO has them."""

import pyro
from pyro import poutine
from torch import Tensor

from cm2pyro.data.dataset import Batch
from cm2pyro.inference.program import Program


def traces(program: Program, batch: Batch, completions: int = 0) -> tuple[poutine.Trace, poutine.Trace]:
    """Of the model at the guide's draws, and of the guide, with log densities."""
    with pyro.settings.context(module_local_params=True):
        guide = poutine.trace(program.guide).get_trace(batch, completions)
        model = poutine.trace(poutine.replay(program.model, guide)).get_trace(batch, completions)
    for trace in (model, guide):
        trace.compute_log_prob()
    return model, guide


def conditioned(program: Program, batch: Batch, values: dict[str, Tensor]) -> poutine.Trace:
    """Of the model alone, with these sites observed, and log densities."""
    with pyro.settings.context(module_local_params=True):
        trace = poutine.trace(pyro.condition(program.model, values)).get_trace(batch)
    trace.compute_log_prob()
    return trace
