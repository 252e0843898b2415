"""Where the mixture starts: fitted to pilot latents, so that components differ and are aligned across modalities."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from cm2pyro import sites
from cm2pyro.distributions.structure import MixtureStructure

Matrix = NDArray[np.float64]
_MOST_ROWS = 20_000  # enough for a start


def start_values(structure: MixtureStructure, z: Tensor, observed: Tensor, restarts: int, seed: int) -> dict[str, Tensor]:
    """Values of all global sites from latents, see `start_margins`."""
    values, tau = start_margins(structure, z, observed, restarts, seed)
    return values | structure.copula.start(tau)


def standard_values(structure: MixtureStructure) -> dict[str, Tensor]:
    """Values of the global sites that make the prior N(0, I): one component, nothing between modalities."""
    shape = (structure.modalities, 1, structure.dim)
    return {sites.WEIGHTS: torch.ones(1), sites.LOCS: torch.zeros(shape), sites.SCALES: torch.ones(shape)}


def start_margins(structure: MixtureStructure, z: Tensor, observed: Tensor, restarts: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Values of the sites that no copula family changes, and the residuals' Kendall's tau.

    With coupling `shared` a full-covariance mixture is fitted to the latents of all modalities side by side (a
    diagonal one splits a correlated cluster in two); with `full`, one per modality, and the table of tuples is counted.

    Args:
        z: (N, M, D) pilot latents. observed: (N, M) bool. restarts: of the EM; the best is kept.

    Returns:
        weights (T,), locs and scales (M, K, D); and pairwise tau (D, M, M).
    """
    latents, mask = z.detach().cpu().double().numpy(), observed.cpu().numpy()
    fill = np.stack([latents[mask[:, m], m].mean(0) if mask[:, m].any() else np.zeros(structure.dim) for m in range(structure.modalities)])
    complete = mask.all(1)
    latents = latents[complete] if complete.sum() >= 20 * structure.components else np.where(mask[..., None], latents, fill)
    if len(latents) > _MOST_ROWS:
        latents = latents[np.random.default_rng(seed).choice(len(latents), _MOST_ROWS, replace=False)]
    fit = _shared if structure.coupling == "shared" else _full
    weights, locs, scales, residuals = fit(structure, latents, restarts, seed)

    def as_tensor(x: Matrix) -> Tensor:
        return torch.as_tensor(x, dtype=z.dtype, device=z.device)

    values = {
        sites.WEIGHTS: as_tensor(weights),
        sites.LOCS: as_tensor(locs),
        # Strictly above the floor, where the site's transform is finite.
        sites.SCALES: as_tensor(np.maximum(scales, 1.05 * structure.scale_floor)),
    }
    tau = as_tensor(_pairwise_tau(residuals))  # (D, M, M)
    return values, tau


def _shared(structure: MixtureStructure, latents: Matrix, restarts: int, seed: int) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    M, K, D = structure.modalities, structure.components, structure.dim
    gmm = _gaussian_mixture(latents.reshape(len(latents), -1), K, restarts, seed)
    locs = gmm.means_.reshape(K, M, D).swapaxes(0, 1)
    variances = np.stack([_variance(gmm, k) for k in range(K)]).reshape(K, M, D).swapaxes(0, 1)
    hard = gmm.predict(latents.reshape(len(latents), -1))
    residuals = (latents - locs[:, hard].swapaxes(0, 1)) / np.sqrt(variances[:, hard].swapaxes(0, 1))
    return _smooth(gmm.weights_), locs, np.sqrt(variances), residuals


def _full(structure: MixtureStructure, latents: Matrix, restarts: int, seed: int) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    M, K = structure.modalities, structure.components
    fits = [_gaussian_mixture(latents[:, m], K, restarts, seed) for m in range(M)]
    locs = np.stack([gmm.means_ for gmm in fits])
    scales = np.sqrt(np.stack([np.stack([_variance(gmm, k) for k in range(K)]) for gmm in fits]))
    responsibilities = np.stack([gmm.predict_proba(latents[:, m]) for m, gmm in enumerate(fits)], 1)  # (N, M, K)
    picked = responsibilities[:, np.arange(M), structure.assignment.cpu().numpy()]  # (N, T, M)
    hard = responsibilities.argmax(-1)  # (N, M)
    m = np.arange(M)
    residuals = (latents - locs[m, hard]) / scales[m, hard]
    return _smooth(picked.prod(-1).mean(0)), locs, scales, residuals


def _gaussian_mixture(x: Matrix, components: int, restarts: int, seed: int) -> GaussianMixture:
    spread = float(x.var(0).mean()) or 1.0
    if len(x) < 2 * components:
        # Too few rows for the EM: repeat them, spread out a little, so that the components still differ.
        x = np.concatenate([x] * -(-2 * components // len(x)))
        x = x + np.random.default_rng(seed).normal(0, 0.1 * np.sqrt(spread), x.shape)
    enough = len(x) > 3 * components * x.shape[1]
    gmm = GaussianMixture(
        components, covariance_type="full" if enough else "diag", n_init=restarts, reg_covar=1e-4 * spread, random_state=seed, max_iter=200
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a start need not have converged
        return gmm.fit(x)


def _variance(gmm: GaussianMixture, k: int) -> Matrix:
    return np.diagonal(gmm.covariances_[k]) if gmm.covariance_type == "full" else gmm.covariances_[k]


def _smooth(weights: Matrix) -> Matrix:
    """Away from zero, where the simplex' transform is finite."""
    weights = weights + 1e-3 / len(weights)
    return weights / weights.sum()


def _pairwise_tau(residuals: Matrix) -> Matrix:
    """Kendall's tau of a Gaussian copula with the residuals' correlation: (n, M, D) -> (D, M, M)."""
    M, D = residuals.shape[1:]
    if len(residuals) < 3:
        return np.tile(np.eye(M), (D, 1, 1))
    centred = residuals - residuals.mean(0)
    cov = np.einsum("nmd,nkd->dmk", centred, centred)
    sd = np.sqrt(np.maximum(np.diagonal(cov, axis1=1, axis2=2), 1e-12))
    correlation = cov / (sd[:, :, None] * sd[:, None, :])
    return 2 / np.pi * np.arcsin(np.clip(correlation, -0.99, 0.99)) * (1 - np.eye(M)) + np.eye(M)
