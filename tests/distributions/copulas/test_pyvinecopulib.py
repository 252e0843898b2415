"""Pairs against pyvinecopulib, inside the parameters that it takes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from cm2pyro.distributions import Copula, make_copula

pyvinecopulib = pytest.importorskip("pyvinecopulib")
BICOP = getattr(pyvinecopulib, "families", pyvinecopulib)  # the short names are deprecated
DOUBLE = torch.float64
# Clayton <= 28, Frank <= 35, Joe <= 30.
TAUS = [0.05, 0.2, 0.5, 0.7, 0.88]
ROTATION = {"survival": 180, "90": 90, "270": 270}


def test_no_shipped_family_is_skipped() -> None:
    """`oracle` skips what pyvinecopulib lacks, as a family from outside may be; were one of these renamed there, nothing would be held."""
    assert all(hasattr(BICOP, name) for name in ("indep", "gaussian", "student", "clayton", "gumbel", "frank", "joe"))


def oracle(c: Copula, df: float | None = None) -> Any:
    """pyvinecopulib's copula with the same parameters."""
    parts = c.family.split("_")
    rotation = next((ROTATION[part] for part in parts if part in ROTATION), 0)
    name = {"independence": "indep", "student_t": "student"}.get(c.family) or next(part for part in parts if part not in ROTATION)
    if not hasattr(BICOP, name):
        pytest.skip(f"pyvinecopulib has no family {name}")
    theta = [[float(c.theta[0, 1] if c.theta.dim() else c.theta)]] + ([[df]] if df else [])
    parameters = {} if name == "indep" else {"parameters": np.array(theta)}
    return pyvinecopulib.Bicop(family=getattr(BICOP, name), rotation=rotation, **parameters)


def scores(n: int = 400) -> tuple[torch.Tensor, np.ndarray]:
    """Scores and their uniforms: over the square, and near both diagonals."""
    u = np.random.default_rng(0).uniform(0.001, 0.999, (n, 2))
    u[: n // 4, 1] = np.clip(u[: n // 4, 0] + 0.01 * (u[: n // 4, 1] - 0.5), 0.001, 0.999)
    u[n // 4 : n // 2, 1] = 1 - u[: n // 4, 1]
    return torch.from_numpy(stats.norm.ppf(u)), u


def fair_points(c: Copula, u: np.ndarray) -> np.ndarray:
    """Where the oracle itself is exact: for Frank at theta = 32 its distribution functions cancel near (1, 1), off by 0.003 (mpmath)."""
    return u.max(1) < (0.5 if c.family == "frank" and abs(float(c.theta)) > 20 else 1)


def check(c: Copula, exact: Any) -> None:
    s, u = scores()
    density = exact.pdf(u)
    sure = density > 1e-290
    np.testing.assert_allclose(c.log_prob(s).numpy()[sure], np.log(density[sure]), rtol=1e-10, atol=1e-10)
    fair = fair_points(c, u)
    for m, expected in ((1, exact.hfunc1(u)), (0, exact.hfunc2(u))):
        F, _ = c.conditional_margin(s, m, torch.arange(2) != m)
        np.testing.assert_allclose(F.numpy()[fair], expected[fair], rtol=1e-8, atol=1e-9)
    pick = (0, 1) if c.tau().dim() else ()
    assert float(c.tau()[pick]) == pytest.approx(exact.tau, abs=1e-8)
    if hasattr(exact, "taildep"):
        # One number per corner of the square.
        got = [float(side[pick]) for side in c.tail_dependence()]
        np.testing.assert_allclose(got, exact.taildep.diagonal(), atol=1e-8)


@pytest.mark.parametrize("tau", TAUS)
def test_pairs(pair_of: Callable[..., Copula], tau: float) -> None:
    c = pair_of(tau)
    exact = oracle(c, 4.0 if c.family == "student_t" else None)
    check(c, exact)
    if c.family not in ("gaussian", "student_t"):
        s, u = scores()
        fair = fair_points(c, u)
        np.testing.assert_allclose(c.log_cdf(s).exp().numpy()[fair], exact.cdf(u)[fair], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("family", "tau", "df"), [("gaussian", -0.9, None), ("frank", -0.7, None), ("student_t", -0.7, 2.5), ("student_t", 0.7, 50.0)]
)
def test_other_parameters(family: str, tau: float, df: float | None) -> None:
    c = make_copula(family, 2, tau=tau, df=df, dtype=DOUBLE)
    check(c, oracle(c, df))
