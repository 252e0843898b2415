"""Another prior moves the posterior where theory says: exact numbers where there is a formula, the direction elsewhere."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from cm2pyro import sites
from cm2pyro.config import Priors
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.inference.maximise import maximise
from cm2pyro.inference.mcmc import Potential, approximation
from cm2pyro.models.priors import head_priors, site_priors

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("float64")]

NORMAL = {"dist": "Normal", "loc": 0, "scale": 1}


def fitted(structure: MixtureStructure, values: dict[str, Tensor], site: str, z: Tensor, prior: dict[str, Any]) -> Tensor:
    """The site at its maximum a posteriori under a prior from a config, the others held."""
    priors = site_priors(structure, Priors.model_validate({site: prior}))
    found, _ = maximise(structure, priors, values, [site], z, torch.ones(z.shape[:2], dtype=torch.bool), steps=200)
    return found[site]


def plain(structure: MixtureStructure) -> dict[str, Tensor]:
    """Standard margins; the copula's sites where its start puts them."""
    M, K, D = structure.modalities, structure.components, structure.dim
    eye = torch.eye(M).expand(D, M, M)
    return {
        sites.WEIGHTS: torch.full((structure.joint_components,), 1 / structure.joint_components),
        sites.LOCS: torch.zeros(M, K, D),
        sites.SCALES: torch.ones(M, K, D),
        **structure.copula.start(0.3 * (1 - eye) + eye),
    }


def latents(rho: float, n: int = 60) -> Tensor:
    torch.manual_seed(0)
    z = torch.randn(n, 2)
    return torch.stack([z[:, 0], rho * z[:, 0] + (1 - rho**2) ** 0.5 * z[:, 1]], 1)[..., None]


def test_weights_of_components_far_apart() -> None:
    """The mode of Dirichlet(a + n): (n_k + a_k − 1) / (N + Σ (a_k − 1))."""
    structure = MixtureStructure(1, 1, 2)
    values = plain(structure) | {sites.LOCS: torch.tensor([[[-20.0], [20.0]]])}
    z = torch.cat([torch.randn(9, 1, 1) - 20, torch.randn(3, 1, 1) + 20])
    for a in ([1.0, 1.0], [4.0, 4.0], [2.0, 30.0]):
        found = fitted(structure, values, sites.WEIGHTS, z, {"dist": "Dirichlet", "concentration": a})
        expected = torch.tensor([9.0, 3.0]) + torch.tensor(a) - 1
        torch.testing.assert_close(found, expected / expected.sum(), atol=1e-4, rtol=0)


def test_locations_shrink_to_the_prior_by_the_formula() -> None:
    structure = MixtureStructure(1, 1, 1)
    torch.manual_seed(0)
    n, sigma = 8, 1.3
    z = 2 + sigma * torch.randn(n, 1, 1)
    values = plain(structure) | {sites.SCALES: torch.full((1, 1, 1), sigma)}
    for loc, scale in ((0.0, 100.0), (0.0, 0.3), (5.0, 0.3)):
        found = fitted(structure, values, sites.LOCS, z, {"dist": "Normal", "loc": loc, "scale": scale})
        precision = n / sigma**2 + 1 / scale**2
        assert float(found) == pytest.approx(float((z.sum() / sigma**2 + loc / scale**2) / precision), abs=1e-4)


def test_scales_follow_their_prior() -> None:
    """Against a search in one dimension; the prior is of what lies above the floor."""
    structure = MixtureStructure(1, 1, 1)
    torch.manual_seed(0)
    z = torch.randn(10, 1, 1)
    squares = float((z**2).sum())
    found = []
    for loc in (-2.0, 0.0, 2.0):

        def loss(sigma: float, loc: float = loc) -> float:
            log = np.log(sigma - structure.scale_floor)
            return float(10 * np.log(sigma) + squares / (2 * sigma**2) + log + (log - loc) ** 2 / (2 * 0.3**2))

        best = optimize.minimize_scalar(loss, bounds=(0.11, 20), method="bounded", options={"xatol": 1e-8}).x
        found.append(float(fitted(structure, plain(structure), sites.SCALES, z, {"dist": "LogNormal", "loc": loc, "scale": 0.3})))
        assert found[-1] == pytest.approx(best, abs=1e-3)
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("rho", [0.7, -0.7])
def test_a_higher_concentration_of_lkj_shrinks_tau(rho: float) -> None:
    structure = MixtureStructure(2, 1, 1)
    taus = []
    for eta in (1.0, 10.0, 100.0):
        site = fitted(structure, plain(structure), sites.COPULA, latents(rho), {"dist": "LKJCorrCholesky", "eta": eta})
        taus.append(float(structure.copula.build({sites.COPULA: site}, site).tau()[0, 0, 1]))
    assert all(tau * rho > 0 for tau in taus)
    assert abs(taus[0]) > abs(taus[1]) + 0.02 > abs(taus[2]) + 0.1


def test_a_beta_prior_moves_tau_of_an_archimedean_family() -> None:
    structure = MixtureStructure(2, 1, 1, family="clayton")
    low, flat, high = (
        float(
            fitted(
                structure,
                plain(structure),
                sites.COPULA,
                latents(0.6),
                {"dist": "Beta", "concentration1": a, "concentration0": b},
            )
        )
        for a, b in ((2, 60), (1, 1), (60, 2))
    )
    assert low + 0.05 < flat < high - 0.05


def test_degrees_of_freedom_follow_their_prior() -> None:
    structure = MixtureStructure(2, 1, 1, family="student_t")
    z = latents(0.6, 30)
    few, many = (
        float(fitted(structure, plain(structure), "copula_df", z, {"dist": "Gamma", "concentration": 20, "rate": rate})) for rate in (20, 1)
    )
    # Their modes are 2 + 19/20 and 2 + 19; thirty rows say little.
    assert 2 < few < 4 < 15 < many < 30


def test_weights_of_families_follow_their_prior() -> None:
    structure = MixtureStructure(2, 1, 1, family="mixture", families=("gaussian", "clayton"))
    z = latents(0.6, 30)
    first, second = (
        fitted(structure, plain(structure), "copula_weights", z, {"dist": "Dirichlet", "concentration": a}) for a in ([40, 2], [2, 40])
    )
    assert float(first[0]) > 0.6
    assert float(second[0]) < 0.4


def test_a_familys_own_site_in_a_mixture_follows_its_prior() -> None:
    structure = MixtureStructure(2, 1, 1, family="mixture", families=("gaussian", "clayton"))
    low, high = (
        float(
            fitted(
                structure,
                plain(structure),
                "copula_clayton",
                latents(0.6, 30),
                {"dist": "Beta", "concentration1": a, "concentration0": b},
            )
        )
        for a, b in ((2, 60), (60, 2))
    )
    assert low < high - 0.2


def logistic(head: dict[str, Any], bias: dict[str, Any] | None) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
    """Mode of weights and bias of a logistic head on given features, and the features and labels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    y = (rng.random(40) < 1 / (1 + np.exp(-(x @ [1.5, -1.0] + 1)))).astype(float)
    structure = MixtureStructure(1, 1, 1)
    asked = Priors.model_validate({"head": head} | ({} if bias is None else {"head_bias": bias}))
    priors = site_priors(structure, Priors()) | head_priors(asked, 1, 2)
    features, labels = torch.from_numpy(x), torch.from_numpy(y)

    def outcome(values: dict[str, Tensor], _: object) -> Tensor:
        logits = (features @ values["head"].mT + values["head_bias"])[:, 0]
        return -torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")

    potential = Potential(structure, priors, torch.randn(4, 1, 1), torch.ones(4, 1, dtype=torch.bool), outcome)
    mode, _ = approximation(potential, torch.zeros(potential.size))
    values = potential.constrain(mode)
    return values["head"][0], values["head_bias"], x, y


def reference(x: np.ndarray, y: np.ndarray, weight: tuple[float, float], bias: tuple[float, float]) -> np.ndarray:
    def loss(b: np.ndarray) -> float:
        logits = x @ b[:2] + b[2]
        prior = (((b[:2] - weight[0]) / weight[1]) ** 2).sum() / 2 + ((b[2] - bias[0]) / bias[1]) ** 2 / 2
        return float(np.logaddexp(0, logits).sum() - y @ logits + prior)

    return optimize.minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-8}).x


def test_the_head_is_ridge_regression_under_its_prior() -> None:
    norms = []
    for scale in (0.1, 1.0, 10.0):
        weight, bias, x, y = logistic(NORMAL | {"scale": scale}, None)
        expected = reference(x, y, (0.0, scale), (0.0, 5.0))  # 5: the default of the bias
        np.testing.assert_allclose([*weight.tolist(), *bias.tolist()], expected, atol=2e-3)
        norms.append(float(weight.norm()))
    assert norms[0] < norms[1] < norms[2]


def test_the_heads_bias_follows_its_prior() -> None:
    found = []
    for loc in (-4.0, 0.0, 4.0):
        weight, bias, x, y = logistic(NORMAL, {"dist": "Normal", "loc": loc, "scale": 0.2})
        np.testing.assert_allclose([*weight.tolist(), *bias.tolist()], reference(x, y, (0.0, 1.0), (loc, 0.2)), atol=2e-3)
        found.append(float(bias))
    assert found[0] < found[1] < found[2]
