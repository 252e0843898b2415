"""Gradients through the choice of a mixture component: bias and spread of the estimators, on one small problem.

    python benchmarks/estimators.py [--dims 1,2,8,32] [--draws 20000]

z_2 is drawn given z_1 under a copula mixture of K = 3 overlapping components (Gaussian copula, tau 0.5); f is smooth. The
exact gradient of E f with respect to the weight logits comes from the sum over components with 20 times the draws. Printed
per estimator: its mean minus that, in standard errors of the difference (beyond 4: biased), and its standard deviation per draw,
each averaged or maximised over the three logits; and the time of a draw with its gradient relative to the sum's.
"""

import argparse
import time
from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor

from cm2pyro.distributions import CopulaMixture, make_copula

DOUBLE = torch.float64
K = 3
BATCH = 20
Loss = Callable[[CopulaMixture, Tensor, Tensor], Tensor]


def f(z: Tensor) -> Tensor:
    x = z[..., 1, :].mean(-1)
    return torch.sin(2 * x) + 0.5 * x.square()


def sum_over_components(p: CopulaMixture, z: Tensor, observed: Tensor) -> Tensor:
    completed, log_r = p.completions(z, observed)
    return (log_r.exp() * f(completed)).sum(0)


def implicit(p: CopulaMixture, z: Tensor, observed: Tensor) -> Tensor:
    return f(p.conditional(z, observed))


def score_function(p: CopulaMixture, z: Tensor, observed: Tensor) -> Tensor:
    drawn, log_r = p.choose(z, observed)
    value = f(drawn)
    baseline = (value.sum() - value) / (len(value) - 1)
    return value + (log_r - log_r.detach()) * (value - baseline).detach()


def pyro_mixture(p: CopulaMixture, z: Tensor, observed: Tensor) -> Tensor:
    """pyro.distributions.MixtureOfDiagNormals on the conditional mixture, which is one of diagonal normals."""
    log_r = p.responsibilities(z[:1], observed[:1])[0]
    rho = p.copula.correlation[:, 0, 1]
    loc = p.locs[1] + rho * p.scales[1] / p.scales[0] * (z[0, 0] - p.locs[0])
    scale = p.scales[1] * (1 - rho**2).sqrt()
    drawn = dist.MixtureOfDiagNormals(loc, scale, log_r).rsample((len(z),))
    return f(torch.stack([z[:, 0], drawn], 1))


def gradients(loss: Loss, p: Callable[[Tensor], CopulaMixture], logits: Tensor, D: int, draws: int) -> Tensor:
    """Gradients with respect to the logits, each the mean of 20 draws: (draws / 20, K)."""
    z = torch.stack([torch.full((draws, D), 0.3, dtype=DOUBLE), torch.zeros(draws, D, dtype=DOUBLE)], 1)
    observed = torch.tensor([True, False]).expand(draws, 2)
    found = []
    for part in torch.arange(draws).split(BATCH):
        leaf = logits.clone().requires_grad_()
        found.append(torch.autograd.grad(loss(p(leaf), z[part], observed[part]).mean(), leaf)[0])
    return torch.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", default="1,2,8,32")
    parser.add_argument("--draws", type=int, default=20_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    estimators: dict[str, Loss] = {
        "sum over components (completions)": sum_over_components,
        "score function, batch baseline (choose)": score_function,
        "sequential implicit (conditional)": implicit,
        "pyro MixtureOfDiagNormals": pyro_mixture,
    }
    for D in (int(d) for d in arguments.dims.split(",")):
        random = torch.Generator().manual_seed(D)
        locs = 0.5 * torch.randn(2, K, D, generator=random, dtype=DOUBLE)
        scales = 0.7 + 0.5 * torch.rand(2, K, D, generator=random, dtype=DOUBLE)
        logits = torch.tensor([0.1, -0.3, 0.2], dtype=DOUBLE)
        copula = make_copula("gaussian", 2, tau=torch.full((D,), 0.5, dtype=DOUBLE))

        def p(leaf: Tensor, locs: Tensor = locs, scales: Tensor = scales, copula: object = copula) -> CopulaMixture:
            return CopulaMixture(leaf, torch.arange(K)[:, None].expand(K, 2), locs, scales, copula)  # type: ignore[arg-type]

        torch.manual_seed(0)
        exact = gradients(sum_over_components, p, logits, D, 20 * arguments.draws)
        print(f"\nD = {D}: gradient {[round(x, 4) for x in exact.mean(0).tolist()]}\n")
        print(f"{'estimator':42}{'bias, standard errors':>22}{'sd per draw':>13}{'time':>7}")
        unit = 0.0
        for name, loss in estimators.items():
            start = time.perf_counter()
            got = gradients(loss, p, logits, D, arguments.draws)
            seconds = time.perf_counter() - start
            unit = unit or seconds
            error = (got.var(0) / len(got) + exact.var(0) / len(exact)).sqrt()
            bias = ((got.mean(0) - exact.mean(0)) / error).abs().max()
            print(f"{name:42}{bias:22.1f}{(BATCH**0.5 * got.std(0)).mean():13.2f}{seconds / unit:7.1f}")


if __name__ == "__main__":
    main()
