"""Likelihood of Kendall's tau under the three ways to estimate it: the picture and the table of docs/estimation.md.

    python benchmarks/likelihood_curves.py docs/likelihood_curves.png [--samples 2000] [--seed 0]

Two modalities, one latent dimension, two components, Clayton copula with tau 0.5, given latents; the components' centres lie
4, 2 or 1 standard deviations apart. Three curves over tau, each relative to its own maximum:
joint    everything else at the joint maximum: what a gradient step on tau sees
profile  everything else maximised again at each tau (the best of paths from the left, from the right and from the truth)
ifm      locs and scales from the margins alone, the weights maximised again at each tau
and where `joint`, started from a Gaussian mixture with one start (full covariance, and diagonal), comes to rest.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from cm2pyro import sites
from cm2pyro.config import Priors
from cm2pyro.distributions import CopulaMixture, make_copula
from cm2pyro.distributions.copulas.base import MAX_TAU
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.inference.maximise import maximise
from cm2pyro.models.priors import site_priors

TRUE_TAU, SEPARATIONS = 0.5, (4.0, 2.0, 1.0)
MARGINS = [sites.WEIGHTS, sites.LOCS, sites.SCALES]
GRID = np.linspace(0.02, 0.95, 32)
STRUCTURE = MixtureStructure(2, 1, 2, family="clayton", scale_floor=0.05)
PRIORS = site_priors(STRUCTURE, Priors())
Values = dict[str, Tensor]


def site_of(tau: float) -> Tensor:
    """The copula's site for a tau (see `ArchimedeanCopula.from_sites`)."""
    return torch.tensor([(tau - 1e-3) / (MAX_TAU - 1e-3)])


def tau_of(values: Values) -> float:
    return float(STRUCTURE.build(values).copula.tau())


def log_likelihood(values: Values, z: Tensor, observed: Tensor) -> float:
    return float(STRUCTURE.build({k: v.double() for k, v in values.items()}).log_prob(z.double(), observed).sum())


def truth(separation: float) -> Values:
    locs = torch.tensor([[-0.5, 0.5], [0.5, -0.5]])[..., None] * separation
    return {sites.WEIGHTS: torch.tensor([0.6, 0.4]), sites.LOCS: locs, sites.SCALES: torch.ones(2, 2, 1), sites.COPULA: site_of(TRUE_TAU)}


def gmm_start(z: Tensor, covariance: str, seed: int) -> Values:
    gmm = GaussianMixture(2, covariance_type=covariance, random_state=seed).fit(z[..., 0].numpy())
    variances = np.stack([np.diagonal(c) for c in gmm.covariances_]) if covariance == "full" else gmm.covariances_
    return {
        sites.WEIGHTS: torch.as_tensor(gmm.weights_).float(),
        sites.LOCS: torch.as_tensor(gmm.means_.T[..., None]).float(),
        sites.SCALES: torch.as_tensor(np.sqrt(variances).T[..., None]).float().clamp_min(0.06),
        sites.COPULA: site_of(0.3),
    }


def path(start: Values, taus: np.ndarray, names: list[str], z: Tensor, observed: Tensor) -> dict[float, float]:
    """The maximum over `names` at each tau, each search from where the last one ended."""
    found, values = {}, dict(start)
    for tau in taus:
        values[sites.COPULA] = site_of(tau)
        values, found[tau] = maximise(STRUCTURE, PRIORS, values, names, z, observed, steps=60)
    return found


def curves(separation: float, samples: int, seed: int) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, tuple[float, float]]]:
    """Curves over GRID, the estimates of the three ways, and tau and log likelihood where `joint` ends from two starts."""
    true = truth(separation)
    weights, locs, scales = (true[name].double() for name in MARGINS)
    copula = make_copula("clayton", 2, tau=torch.tensor([TRUE_TAU], dtype=torch.float64))
    population = CopulaMixture(weights.log(), STRUCTURE.assignment, locs, scales, copula)
    torch.manual_seed(seed)
    z, observed = population.rsample((samples,)).float(), torch.ones(samples, 2, dtype=torch.bool)
    everything = [*MARGINS, sites.COPULA]

    joint, _ = maximise(STRUCTURE, PRIORS, true, everything, z, observed)
    profile = [path(joint, taus, MARGINS, z, observed) for taus in (GRID, GRID[::-1])]
    profile.append({tau: path(true, np.array([tau]), MARGINS, z, observed)[tau] for tau in GRID})
    apart, _ = maximise(STRUCTURE, PRIORS, true, MARGINS, z, observed, margins_only=True)
    ifm = path(apart, GRID, [sites.WEIGHTS], z, observed)
    second, _ = maximise(STRUCTURE, PRIORS, apart, [sites.WEIGHTS, sites.COPULA], z, observed)
    found = {
        "joint": np.array([log_likelihood(joint | {sites.COPULA: site_of(tau)}, z, observed) for tau in GRID]),
        "profile": np.array([max(one[tau] for one in profile) for tau in GRID]),
        "ifm": np.array([ifm[tau] for tau in GRID]),
    }
    rest = {}
    for covariance in ("full", "diag"):
        values, likelihood = maximise(STRUCTURE, PRIORS, gmm_start(z, covariance, seed), everything, z, observed)
        rest[covariance] = (tau_of(values), likelihood)
    best = GRID[found["profile"].argmax()]
    refined, _ = maximise(STRUCTURE, PRIORS, joint | {sites.COPULA: site_of(float(best))}, everything, z, observed)
    return found, {"joint": tau_of(joint), "profile": tau_of(refined), "ifm": tau_of(second)}, rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figure, axes = plt.subplots(1, len(SEPARATIONS), figsize=(12, 4.4), layout="constrained")
    print(f"{'separation':>10}{'joint':>8}{'profile':>9}{'ifm':>7}   joint from a full / a diagonal start: tau (nats below the best)")
    for axis, separation in zip(axes, SEPARATIONS, strict=True):
        found, estimates, rest = curves(separation, arguments.samples, arguments.seed)
        top = max(found["profile"].max(), found["joint"].max())
        ends = "   ".join(f"{tau:.3f} ({top - likelihood:.0f})" for tau, likelihood in rest.values())
        print(f"{separation:10g}{estimates['joint']:8.3f}{estimates['profile']:9.3f}{estimates['ifm']:7.3f}   {ends}")
        for (name, curve), style in zip(found.items(), ("--", "-", "-."), strict=True):
            axis.plot(GRID, curve - curve.max(), style, label=f"{name}: {estimates[name]:.2f}")
        axis.axvline(TRUE_TAU, color="grey", lw=0.8)
        for (covariance, (tau, likelihood)), marker in zip(rest.items(), ("o", "s"), strict=True):
            axis.plot(
                tau,
                max(likelihood - top, -290),
                marker,
                color="black",
                mfc="none" if marker == "s" else "black",
                label=f"joint from {covariance} start",
            )
        axis.set(title=f"centres {separation:g} sd apart", xlabel="Kendall's tau inside a component", ylim=(-300, 15))
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    axes[0].set_ylabel("log likelihood, relative to the curve's maximum")
    figure.savefig(arguments.picture, dpi=110)


if __name__ == "__main__":
    main()
