"""Speed of the copulas: one process, the same number of threads, warm, medians over rounds.

    python benchmarks/copulas.py [--threads 1] [--rounds 9] [--only pairs|mixtures|slopes]

Three tables: log densities of 1e6 pairs in float64 against pyvinecopulib's `pdf`, each from its natural input (normal scores
here, uniforms there); forward and backward of the copula mixture's log density (B = 256, D = 256, M = 2, K = 3, coupling
`shared`, float32) as a multiple of `torch.nn.Linear(256, 256)` forward and backward on the same batch; and the exponent of
the cost in M, K and D, the slope of a line through log time. Competitors take turns within a round, so that a busy machine
slows all of them.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import pyvinecopulib
import torch

from cm2pyro.distributions import FAMILIES, Copula, CopulaMixture, make_copula

PAIRS = 1_000_000
# family -> pyvinecopulib's family and rotation
OTHERS = {
    "gaussian": ("gaussian", 0),
    "student_t": ("student", 0),
    "clayton": ("clayton", 0),
    "gumbel": ("gumbel", 0),
    "frank": ("frank", 0),
    "joe": ("joe", 0),
    "survival_clayton": ("clayton", 180),
    "survival_gumbel": ("gumbel", 180),
    "survival_joe": ("joe", 180),
    "clayton_90": ("clayton", 90),
    "clayton_270": ("clayton", 270),
    "gumbel_90": ("gumbel", 90),
    "gumbel_270": ("gumbel", 270),
    "joe_90": ("joe", 90),
    "joe_270": ("joe", 270),
}
ALL = ("independence", *OTHERS)
THREE = [family for family in ALL if not family.endswith(("_90", "_270"))]  # those that tie more than two


def medians(rounds: int, *jobs: Callable[[], object]) -> list[float]:
    """Median milliseconds of each job; the jobs take turns."""
    times: list[list[float]] = [[] for _ in jobs]
    for turn in range(rounds + 2):
        for job, kept in zip(jobs, times, strict=True):
            start = time.perf_counter()
            job()
            if turn >= 2:  # the first two warm up
                kept.append(1000 * (time.perf_counter() - start))
    return [statistics.median(kept) for kept in times]


def tau_of(family: str) -> float:
    return 0.0 if family == "independence" else -0.5 if family.endswith(("_90", "_270")) else 0.5


def pairs(rounds: int, threads: int) -> None:
    print(f"\nlog density of {PAIRS:,} pairs, float64, eager, tau 0.5; pyvinecopulib {pyvinecopulib.__version__}\n")
    print(f"{'family':18}{'here, ms':>10}{'other, ms':>11}{'ratio':>7}{'largest difference':>20}")
    for family, (name, rotation) in OTHERS.items():
        copula = make_copula(family, 2, tau=tau_of(family), dtype=torch.float64)
        theta = copula.theta[0, 1] if copula.theta.dim() else copula.theta
        parameters = [[float(theta)], [4.0]] if family == "student_t" else [[float(theta)]]
        other = pyvinecopulib.Bicop(family=getattr(pyvinecopulib.families, name), rotation=rotation, parameters=np.array(parameters))
        torch.manual_seed(0)
        s = copula.rsample((PAIRS // 10,)).repeat(10, 1)
        u = np.asfortranarray(torch.special.ndtr(s).numpy())  # the layout that it takes without a copy

        def ours(copula: Copula = copula, s: torch.Tensor = s) -> torch.Tensor:
            return copula.log_prob(s)

        def theirs(other: pyvinecopulib.Bicop = other, u: np.ndarray = u) -> np.ndarray:
            return other.pdf(u, num_threads=threads)

        here, there = medians(rounds, ours, theirs)
        inside = ((u > 1e-9) & (u < 1 - 1e-9)).all(1)
        difference = np.abs(ours().numpy() - np.log(theirs()))[inside].max()
        print(f"{family:18}{here:10.1f}{there:11.1f}{there / here:7.2f}{difference:20.1e}")


def mixture(family: str, M: int, K: int, D: int, B: int) -> Callable[[], None]:
    """Forward and backward of the log density of B rows."""
    random = torch.Generator().manual_seed(0)
    logits = torch.zeros(K, requires_grad=True)
    locs = (2 * torch.randn(M, K, D, generator=random)).requires_grad_()
    scales = (0.5 + torch.rand(M, K, D, generator=random)).requires_grad_()
    tau = torch.full((D,), tau_of(family), requires_grad=True)
    z = torch.randn(B, M, D, generator=random).requires_grad_()
    assignment = torch.arange(K)[:, None].expand(K, M)
    fixed = make_copula(family, M, tau=0.0) if family == "independence" else None
    # The parameter itself is the leaf: its way from tau is a matter of D numbers.
    copula = fixed or FAMILIES.get(family).from_tau(tau.detach(), M)
    leaves = [logits, locs, scales, z]
    if fixed is None:
        leaf = (copula.scale_tril if hasattr(copula, "scale_tril") else copula.theta).detach().requires_grad_()
        leaves.append(leaf)
        copula = copula._with(leaf) if hasattr(copula, "scale_tril") else copula._with(leaf, tuple(range(M)))

    def step() -> None:
        for x in leaves:
            x.grad = None
        CopulaMixture(logits, assignment, locs, scales, copula, validate_args=False).log_prob(z).sum().backward()

    return step


def linear() -> Callable[[], None]:
    """Forward and backward of Linear(256, 256) on 256 rows."""
    layer, x = torch.nn.Linear(256, 256), torch.randn(256, 256, requires_grad=True)

    def step() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x).sum().backward()

    return step


def mixtures(rounds: int) -> None:
    print("\nforward + backward of the copula mixture, B 256, D 256, M 2, K 3, shared, float32; as a multiple of Linear(256, 256)\n")
    print(f"{'family':18}{'ms':>8}{'linear, ms':>12}{'multiple':>10}")
    for family in ALL:
        unit = linear()
        ours, one = medians(rounds, mixture(family, 2, 3, 256, 256), lambda unit=unit: [unit() for _ in range(10)])
        print(f"{family:18}{ours:8.1f}{one / 10:12.2f}{ours / one * 10:10.1f}")


def slopes(rounds: int) -> None:
    print("\nexponent of the cost of forward + backward in K, D (M 2) and M, the others held; 1 is linear, less where overhead shows\n")
    print(f"{'family':18}{'K':>8}{'D':>8}{'M':>8}")
    grids = {
        "K": [(2, k, 64) for k in (4, 8, 16, 32)],
        "D": [(2, 4, d) for d in (64, 128, 256, 512)],
        "M": [(m, 4, 64) for m in (2, 3, 4, 6, 8)],
    }
    for family in ("gaussian", "student_t", "clayton", "gumbel", "frank", "joe"):
        found = []
        for axis, grid in grids.items():
            sizes = [shape["MKD".index(axis)] for shape in grid]
            times = medians(rounds, *(mixture(family, *shape, 128) for shape in grid))
            found.append(np.polyfit(np.log(sizes), np.log(times), 1)[0])
        print(f"{family:18}" + "".join(f"{slope:8.2f}" for slope in found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=("pairs", "mixtures", "slopes"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), {arguments.rounds} rounds")
    if arguments.only in (None, "pairs"):
        pairs(arguments.rounds, arguments.threads)
    if arguments.only in (None, "mixtures"):
        mixtures(arguments.rounds)
    if arguments.only in (None, "slopes"):
        slopes(arguments.rounds)
