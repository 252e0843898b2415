"""Numbers that are not finite: which site or parameter they came from."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from cm2pyro.errors import CM2Error
from cm2pyro.inference.program import Program

REMEDY = "lower fit.lr, or look for extreme values in the data"


def norms(program: Program) -> Tensor:
    """Of every parameter's gradient, (n,)."""
    return torch.stack(torch._foreach_norm([parameter.grad for parameter in program.parameters() if parameter.grad is not None]))


def culprit(program: Program, loss: Tensor) -> str:
    """What is not finite in the last `loss` of a program or its gradient: a parameter, else a site, else a gradient."""
    gradients = {name: parameter.grad for name, parameter in program.named_parameters() if parameter.grad is not None}
    weights = _parameter(program)
    if weights is not None:
        return weights
    if not _finite(loss):
        return f"loss {float(loss.detach()):.3g}{_site(program)}"
    name = next((name for name, gradient in gradients.items() if not _finite(gradient)), None)
    if name is None:
        return "norm of the gradient"
    bad = int((~torch.isfinite(gradients[name])).sum())
    return f"gradient of parameter {name}: {bad} of {gradients[name].numel()} entries"


def culprit_of(program: Program, error: Exception) -> str:
    """The same where Pyro's checks, or a factorisation, gave up before there was a loss."""
    weights = _parameter(program)
    if weights is not None:
        return weights
    site = re.search(r"site ['\"]?(\w+)", str(error))
    reason = str(error).splitlines()[0].rstrip(": ")[:200]
    return f"site {site[1]}: {reason}" if site else reason


def _parameter(program: Program) -> str | None:
    bad = (name for name, parameter in program.named_parameters() if not _finite(parameter))
    return next((f"parameter {name}" for name in bad), None)


def _site(program: Program) -> str:
    # Densities first: of a row that lacks a modality, the value is drawn given the others and only repeats what is wrong with them.
    for key, what in (("log_prob_sum", "log density"), ("value", "value")):
        for part, trace in zip(("model", "guide"), program.trace_elbo.traces, strict=True):
            for name, node in trace.nodes.items():
                found = node.get(key)
                if node["type"] == "sample" and isinstance(found, Tensor) and not _finite(found):
                    return f": {what} of site {name} in the {part}"
    return ""


def check(tensors: Mapping[str, Tensor], when: str) -> None:
    """Refuse tensors that are not finite, naming the first. Raises CM2Error."""
    for name, tensor in tensors.items():
        if not _finite(tensor):
            raise CM2Error(f"{when}: {name} is no longer finite; expected finite numbers; the last good checkpoint stays; {REMEDY}")


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
