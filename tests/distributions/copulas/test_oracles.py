"""log_prob against the definition of each family: automatic differentiation of the distribution function, and 60 digits."""

import math
from collections.abc import Callable

import mpmath as mp
import pytest
import torch
from mpmath import mpf
from scipy import stats
from torch import Tensor

from cm2pyro.distributions import Copula, make_copula

DOUBLE = torch.float64
TAUS = [0.05, 0.2, 0.5, 0.7, 0.95]
Jet = list[mpf]  # Taylor coefficients


@pytest.fixture(autouse=True)
def _digits() -> None:
    mp.mp.dps = 60


# --- automatic differentiation ------------------------------------------------------------------------------------

GENERATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "clayton": lambda t, a: (1 + t) ** (-1 / a),
    "gumbel": lambda t, a: torch.exp(-(t ** (1 / a))),
    "frank": lambda t, a: -torch.log1p(torch.expm1(-a) * torch.exp(-t)) / a,
    "joe": lambda t, a: -torch.expm1(torch.log(-torch.expm1(-t)) / a),
}
INVERSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "clayton": lambda u, a: torch.expm1(-a * u.log()),
    "gumbel": lambda u, a: (-u.log()) ** a,
    "frank": lambda u, a: -torch.log(torch.expm1(-a * u) / torch.expm1(-a)),
    "joe": lambda u, a: -torch.log(-torch.expm1(a * torch.log1p(-u))),
}


def mixed_derivative(value: Tensor, by: list[Tensor]) -> Tensor:
    """One derivative in each variable."""
    for x in by:
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    return value.detach()


@pytest.mark.parametrize("M", [2, 3, 4])
@pytest.mark.parametrize("tau", TAUS[:-1])
@pytest.mark.parametrize("family", GENERATORS)
def test_derivative_of_the_generated_distribution_function(copula: Callable[..., Copula], family: str, tau: float, M: int) -> None:
    """u in [0.05, 0.95], where float64 keeps eight digits through M derivatives of the textbook formulas (1e-9 lost at most)."""
    c = copula(family, M, tau)
    u = 0.05 + 0.9 * torch.rand(30, M, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    each = [x.requires_grad_() for x in u.unbind(-1)]
    C = GENERATORS[family](torch.stack([INVERSES[family](x, c.theta) for x in each]).sum(0), c.theta)
    torch.testing.assert_close(c.log_prob(torch.special.ndtri(u)).exp(), mixed_derivative(C, each), rtol=1e-8, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("M", [2, 3, 4])
def test_derivative_of_log_cdf(copula: Callable[..., Copula], M: int) -> None:
    """∂^M C / ∂s_1 … ∂s_M = c φ(s_1) … φ(s_M) for every family that has `log_cdf`, |s| below 1.7."""
    families = ["independence", *GENERATORS, "survival_clayton", *(("survival_gumbel", "survival_joe") if M < 4 else ())]
    families += [f"{f}_{angle}" for f in GENERATORS if f != "frank" for angle in (90, 270) if M == 2]
    s = torch.special.ndtri(0.05 + 0.9 * torch.rand(20, M, generator=torch.Generator().manual_seed(1), dtype=DOUBLE))
    log_normal = (-0.5 * s.square() - 0.5 * math.log(2 * math.pi)).sum(-1)
    for family in families:
        c = copula(family, M, 0.5)
        each = [x.clone().requires_grad_() for x in s.unbind(-1)]
        derivative = mixed_derivative(c.log_cdf(torch.stack(each, -1)).exp(), each)
        worst = (derivative / (c.log_prob(s) + log_normal).exp() - 1).abs().max()
        assert float(worst) < 1e-8, family


# --- sixty digits: log c = log |psi^(M)(Σ t)| + Σ log |dt/du|, psi's derivatives from arithmetic on Taylor series --------


def series_exp(a: Jet, first: mpf) -> Jet:
    out = [first]
    for k in range(1, len(a)):
        out.append(sum(j * a[j] * out[k - j] for j in range(1, k + 1)) / k)
    return out


def series_log(a: Jet) -> Jet:
    out = [mp.log(a[0])]
    for k in range(1, len(a)):
        out.append((a[k] - sum(j * out[j] * a[k - j] for j in range(1, k)) / k) / a[0])
    return out


def series_power(a: Jet, p: mpf) -> Jet:
    log = series_log(a)
    return series_exp([p * x for x in log], mp.exp(p * log[0]))


def generator_series(family: str, t: mpf, a: mpf, n: int) -> Jet:
    """psi(t + x) = Σ_k out_k x^k up to the sign and the constant, neither of which a derivative's size depends on."""
    x = [t, mpf(1), *[mpf(0)] * (n - 1)]
    if family == "clayton":
        return series_power([1 + t, *x[1:]], -1 / a)
    if family == "gumbel":
        power = series_power(x, 1 / a)
        return series_exp([-v for v in power], mp.exp(-power[0]))
    decay = series_exp([-v for v in x], mp.exp(-t))
    if family == "joe":
        return series_power([-mp.expm1(-t), *(-v for v in decay[1:])], 1 / a)
    p = -mp.expm1(-a)
    return [v / a for v in series_log([mp.exp(-a) - p * mp.expm1(-t), *(-p * v for v in decay[1:])])]


def inverse(family: str, s: float, a: mpf) -> tuple[mpf, mpf]:
    """t = psi^-1(Φ(s)) and |dt/du|, from whichever of u and 1 − u is small."""
    u, q = mp.ncdf(mpf(s)), mp.ncdf(-mpf(s))
    b = -mp.log1p(-q) if s > 0 else -mp.log(u)
    if family == "clayton":
        return mp.expm1(a * b), a * mp.exp((1 + a) * b)
    if family == "gumbel":
        return b**a, a * b ** (a - 1) / u
    if family == "joe":
        rest = -mp.expm1(a * mp.log1p(-u))
        return -mp.log1p(-(q**a)) if s > 0 else -mp.log(rest), a * q ** (a - 1) / rest
    p = -mp.expm1(-a)
    return -mp.log1p(-mp.exp(-a) * mp.expm1(a * q) / p) if a * u > 1 else -mp.log(-mp.expm1(-a * u) / p), a / mp.expm1(a * u)


def reference(family: str, s: list[float], theta: float) -> mpf:
    n, a = len(s), mpf(theta)
    pairs = [inverse(family, x, a) for x in s]
    top = generator_series(family, mp.fsum(t for t, _ in pairs), a, n)[n]
    return mp.log(abs(top) * mp.factorial(n)) + mp.fsum(mp.log(slope) for _, slope in pairs)


def points(M: int) -> list[list[float]]:
    """The centre, ties, corners and mixed tails out to 8."""
    rows = [[0.0] * M, [8.0] * M, [-8.0] * M, [8.0, *[-8.0] * (M - 1)], [-8.0, *[8.0] * (M - 1)], [8.0, *[0.3] * (M - 1)]]
    drawn = torch.randn(5, M, generator=torch.Generator().manual_seed(M), dtype=DOUBLE)
    near = 3 * drawn[:, :1] + 0.05 * drawn
    return [*rows, *drawn.tolist(), *(2 * drawn).tolist(), *near.tolist()]


def assert_near(got: Tensor, expected: list[mpf]) -> None:
    """1e-8 of the logarithm, or absolutely where that is smaller than 1 (it crosses zero, where a relative error means nothing).

    All values count, also those below −50.
    """
    for value, exact in zip(got.tolist(), expected, strict=True):
        assert mp.isfinite(exact)
        assert abs(value - exact) <= 1e-8 * max(1, abs(exact)), (value, float(exact))


@pytest.mark.parametrize("M", [2, 3, 5])
@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("family", GENERATORS)
def test_archimedean_density_against_sixty_digits(copula: Callable[..., Copula], family: str, tau: float, M: int) -> None:
    c = copula(family, M, tau)
    rows = points(M)
    assert_near(c.log_prob(torch.tensor(rows, dtype=DOUBLE)), [reference(family, s, float(c.theta)) for s in rows])


@pytest.mark.parametrize("family", GENERATORS)
def test_archimedean_density_far_out_against_sixty_digits(copula: Callable[..., Copula], family: str) -> None:
    """Around |s| = 12 and 36 the special functions change their formula; 40 is what other mixture components produce."""
    rows = [[-40.0, 40.0], [40.0, 40.0], [-40.0, -40.0], [40.0, 0.5], [-36.1, -35.9], [35.9, 36.1], [-12.1, 11.9], [-0.001, -40.0]]
    for tau in (0.01, 0.5, 0.99):
        c = copula(family, 2, tau)
        assert_near(c.log_prob(torch.tensor(rows, dtype=DOUBLE)), [reference(family, s, float(c.theta)) for s in rows])


@pytest.mark.slow
@pytest.mark.parametrize("family", GENERATORS)
def test_log_cdf_against_sixty_digits(copula: Callable[..., Copula], family: str) -> None:
    """log psi(Σ t), down to C = Φ(−40), which is 1e-350: Joe's is one less something, so more digits."""
    mp.mp.dps = 800
    rows = [[-40.0, -40.0], [-3.0, -8.0], [-20.0, 0.5], [-0.1, 0.2], [8.0, 3.0], [40.0, -12.1], [12.1, 11.9], [36.1, 40.0]]
    for tau in (0.05, 0.5, 0.95):
        c = copula(family, 2, tau)
        a = mpf(float(c.theta))
        expected = []
        for s in rows:
            first = generator_series(family, mp.fsum(inverse(family, x, a)[0] for x in s), a, 1)[0]
            # The series of Joe leaves out the constant, Frank's the sign.
            expected.append(mp.log(1 - first if family == "joe" else abs(first)))
        assert_near(c.log_cdf(torch.tensor(rows, dtype=DOUBLE)), expected)


def test_kendalls_tau_against_sixty_digits() -> None:
    """Frank's by Debye's integral and Joe's by digamma, through the switches of both (series below 0.5 and 40, a hole at 2)."""
    mp.mp.dps = 25
    for theta in (1e-3, 0.1, 0.499, 0.501, 3.0, 12.0, 39.0, 41.0, 400.0):
        debye = mp.quad(lambda t: t / mp.expm1(t), [0, min(theta, 5), theta]) / theta
        tau = make_copula("frank", 2, theta=torch.tensor(theta, dtype=DOUBLE)).tau()
        assert float(tau) == pytest.approx(float(1 + 4 * (debye - 1) / theta), rel=1e-11, abs=1e-15)
    for theta in (1 + 1e-6, 1.3, 1.999, 2.001, 2.5, 8.0, 60.0, 300.0):
        expected = 1 + 2 * (mp.digamma(2) - mp.digamma(2 / mpf(theta) + 1)) / (2 - mpf(theta))
        assert float(make_copula("joe", 2, theta=torch.tensor(theta, dtype=DOUBLE)).tau()) == pytest.approx(
            float(expected), rel=1e-9, abs=1e-15
        )


FAR = [
    ([-30.0], 2.0),
    ([-10.676661680177247], -0.5372154329629819),
    ([34.408145085570936], -1.0297505041592216),
    ([40.0], 3.0),
    ([0.5], -3.0),
    ([-2.0, -40.0], -2.0),
    ([30.301969911857203, 20.644938291298836], 0.4680428743732126),
    ([40.0, 40.0], 1.0),
    ([5.0, -40.0], 3.0),
    ([1.0, -0.5], 0.0),
]


@pytest.mark.parametrize("tau", [0.05, 0.5, 0.95, 0.99])
@pytest.mark.parametrize("family", GENERATORS)
def test_draws_given_far_scores_against_sixty_digits(copula: Callable[..., Copula], family: str, tau: float) -> None:
    """psi^(k)(t_given + t) / psi^(k)(t_given) = Φ(noise), to 1e-6 on the scale of the noise. Searches have gone astray at some of these."""
    for given, noise in FAR:
        k = len(given)
        c = copula(family, k + 1, tau)
        s = torch.tensor([*given, torch.nan], dtype=DOUBLE)
        drawn = c.conditional(s, torch.arange(k + 1) < k).rsample(noise=torch.full((k + 1,), noise, dtype=DOUBLE))
        a = mpf(float(c.theta))
        before = mp.fsum(inverse(family, x, a)[0] for x in given)
        after = before + inverse(family, float(drawn[-1]), a)[0]
        F = generator_series(family, after, a, k)[k] / generator_series(family, before, a, k)[k]
        assert abs(F - mp.ncdf(noise)) < 1e-6 * mp.npdf(noise), (given, noise, float(drawn[-1]), float(F))


def quantile(s: float, df: float) -> mpf:
    """x with P(T > x) = Φ(−s) for s >= 0: Newton steps on the logarithm of the tail, a concave function."""
    if s == 0:
        return mpf(0)
    nu, target = mpf(df), mp.log(mp.ncdf(-mpf(s)))
    x = mpf(float(stats.t.isf(stats.norm.sf(s), df)))
    log_constant = mp.loggamma((nu + 1) / 2) - mp.loggamma(nu / 2) - mp.log(nu * mp.pi) / 2
    for _ in range(3):
        tail = mp.betainc(nu / 2, mpf(1) / 2, 0, nu / (nu + x * x), regularized=True) / 2
        density = mp.exp(log_constant - (nu + 1) / 2 * mp.log1p(x * x / nu))
        x += (mp.log(tail) - target) * tail / density
    return x


@pytest.mark.parametrize("df", [2.5, 4.0, 30.0])
def test_student_t_density_against_sixty_digits(copula: Callable[..., Copula], df: float) -> None:
    nu, grid = mpf(df), [0.0, 0.3, 1.7, 4.0, 8.0]
    x = {s: quantile(s, df) for s in grid}
    x |= {-s: -value for s, value in x.items()}

    def log_t(form: mpf, log_det: mpf, n: int) -> mpf:
        constant = mp.loggamma((nu + n) / 2) - mp.loggamma(nu / 2) - mpf(n) / 2 * mp.log(nu * mp.pi)
        return constant - log_det / 2 - (nu + n) / 2 * mp.log1p(form / nu)

    signs = torch.randint(0, 2, (8, 5), generator=torch.Generator().manual_seed(0)) * 2 - 1
    which = torch.randint(0, len(grid), (8, 5), generator=torch.Generator().manual_seed(1))
    drawn = (torch.tensor(grid, dtype=DOUBLE)[which] * signs).tolist()
    signed = [*drawn, [8.0] * 5, [-8.0] * 5, [8.0, *[-8.0] * 4], [0.0] * 5]
    for M in (2, 3, 5):
        for tau in (-0.1, *TAUS):
            c = copula("student_t", M, tau, df=df)
            rows = [row[:M] for row in signed]
            R = mp.matrix((c.scale_tril @ c.scale_tril.mT).tolist())
            inverse_R, log_det = R**-1, mp.log(mp.det(R))
            expected = []
            for row in rows:
                v = mp.matrix([x[s] for s in row])
                expected.append(log_t((v.T * inverse_R * v)[0], log_det, M) - mp.fsum(log_t(y * y, mpf(0), 1) for y in v))
            assert_near(c.log_prob(torch.tensor(rows, dtype=DOUBLE)), expected)
