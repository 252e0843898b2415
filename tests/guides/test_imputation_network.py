"""The amortized treatment: its density, what it reads, what it leaves alone, and that the ELBO trains it."""

import pytest
import torch

from cm2pyro.config import Config
from cm2pyro.data.dataset import Batch
from cm2pyro.distributions import CopulaMixture, make_copula
from cm2pyro.guides.imputation_network import Amortized
from cm2pyro.inference.program import Program
from tests.traces import traces

M, D = 3, 2
NAMES = ("a", "b", "c")
OBSERVED = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 0]], dtype=torch.bool)


def mixture() -> CopulaMixture:
    locs = torch.tensor([-1.0, 1.0])[None, :, None].expand(M, 2, D).contiguous()
    return CopulaMixture(
        torch.zeros(2), torch.arange(2)[:, None].expand(2, M), locs, torch.full_like(locs, 0.5), make_copula("gaussian", M, tau=0.5)
    )


def network() -> Amortized:
    torch.manual_seed(0)
    made = Amortized(M, D)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.0)  # away from its start, where all rows are nearly alike
    return made


def represented() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    loc, scale = torch.randn(5, M, D, generator=random), torch.rand(5, M, D, generator=random) + 0.1
    seen = OBSERVED[..., None]
    return loc.where(seen, torch.zeros(())), scale.where(seen, torch.zeros(()))


def test_its_density_is_that_of_its_normal() -> None:
    made, known = network(), represented()
    z, log_q = made(mixture(), torch.full((5, M, D), torch.nan).where(~OBSERVED[..., None], torch.ones(())), OBSERVED, None, known)
    loc, scale = made.parameters_of(known, OBSERVED)
    expected = torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1).log_prob(z)
    torch.testing.assert_close(log_q, expected.where(~OBSERVED, torch.zeros(())))
    assert torch.isfinite(z).all()


def test_draws_have_its_mean_and_spread() -> None:
    made, known = network(), represented()
    n = 4000
    torch.manual_seed(3)
    z, _ = made(mixture(), torch.zeros(n, 5, M, D), OBSERVED.expand(n, 5, M), None, known)
    loc, scale = made.parameters_of(known, OBSERVED)
    error = (z.mean(0) - loc).abs() / (scale / n**0.5)
    assert float(error[~OBSERVED].detach().max()) < 5
    ratio = z.std(0) / scale
    assert float((ratio[~OBSERVED].detach() - 1).abs().max()) < 5 / (2 * n) ** 0.5


def test_it_reads_locations_scales_and_the_mask_of_the_observed_alone() -> None:
    made, (loc, scale) = network(), represented()
    base = made.parameters_of((loc, scale), OBSERVED)
    hidden = ~OBSERVED[..., None]
    garbage = made.parameters_of((loc.where(~hidden, torch.tensor(torch.nan)), scale.where(~hidden, torch.tensor(7.0))), OBSERVED)
    for left, right in zip(base, garbage, strict=True):
        assert left.equal(right)
    for changed in ((loc + 0.1, scale), (loc, scale + 0.1)):
        moved = made.parameters_of(changed, OBSERVED)[0]
        some = OBSERVED.any(1)
        assert bool((moved != base[0]).any(-1).all(-1)[some].all())
        assert moved[~some].equal(base[0][~some])
    # An observed latent at 0 is not a missing one.
    zeros = torch.zeros(1, M, D)
    masks = torch.tensor([[True, True, False]]), torch.tensor([[True, False, False]])
    assert not made.parameters_of((zeros, zeros), masks[0])[0].equal(made.parameters_of((zeros, zeros), masks[1])[0])


def test_shared_noise_gives_shared_draws_and_a_row_does_not_depend_on_others() -> None:
    made, known = network(), represented()
    S = 4
    normal = torch.randn(S, 1, M, D, generator=torch.Generator().manual_seed(2)).expand(S, 5, M, D)
    noise = torch.rand(S, 5, M), normal
    z, _ = made(mixture(), torch.zeros(S, 5, M, D), OBSERVED.expand(S, 5, M), noise, known)
    other = known[0].clone(), known[1].clone()
    other[0][2:] += 5.0
    again, _ = made(mixture(), torch.zeros(S, 5, M, D), OBSERVED.expand(S, 5, M), noise, other)
    assert again[:, :2].equal(z[:, :2])
    twice = tuple(x[[1, 1, 1, 1, 1]] for x in known)
    same, _ = made(mixture(), torch.zeros(S, 5, M, D), OBSERVED[[1] * 5].expand(S, 5, M), noise, twice)
    assert same[:, 0].equal(same[:, 3])


def test_points_need_no_representation() -> None:
    made = network()
    z = torch.randn(5, M, D)
    loc, _ = made.parameters_of((z, torch.zeros_like(z)), OBSERVED)
    noise = torch.zeros(5, M), torch.zeros(5, M, D)
    filled, _ = made(mixture(), z, OBSERVED, noise)
    torch.testing.assert_close(filled, torch.where(OBSERVED[..., None], z, loc))


def program(missing: str = "amortized") -> Program:
    torch.manual_seed(0)
    config = {
        "modalities": {name: {"kind": "embedding", "encoder": "mlp", "hidden": 4, "dropout": 0.0} for name in NAMES},
        "latent": {"dim": D},
        "guide": {"missing": missing},
        "fusion": {"kind": "mlp", "hidden": 4},
        "fit": {"beta": 0.5},
    }
    return Program(Config.from_dict(config), {name: {"vector": (3,)} for name in NAMES}, 2)


def batch(observed: torch.Tensor) -> Batch:
    n = len(observed)
    inputs = {name: {"vector": torch.randn(n, 3, generator=torch.Generator().manual_seed(m))} for m, name in enumerate(NAMES)}
    return Batch(inputs, observed, torch.arange(n) % 2, torch.ones(n, dtype=torch.bool), torch.arange(n), n)


def test_the_model_scores_every_latent_and_the_guide_its_own_density() -> None:
    made = program()
    rows = batch(OBSERVED)
    model, guide = traces(made, rows)
    z = torch.stack([guide.nodes[f"z_{name}"]["value"] for name in NAMES], -2)
    loc, scale = made.guide.represent(rows)
    filled = made.guide.treat.parameters_of((loc, scale), OBSERVED)
    seen = OBSERVED[..., None]
    log_q = torch.distributions.Normal(torch.where(seen, loc, filled[0]), torch.where(seen, scale, filled[1])).log_prob(z).sum()
    log_p = made.structure.build({name: model.nodes[name]["value"] for name in ("weights", "locs", "scales", "copula")}).log_prob(z).sum()
    torch.testing.assert_close(sum(guide.nodes[f"z_{name}"]["log_prob_sum"] for name in NAMES), 0.5 * log_q)
    torch.testing.assert_close(sum(model.nodes[f"z_{name}"]["log_prob_sum"] for name in NAMES), 0.5 * log_p)


@pytest.mark.parametrize("pattern", ["some", "all missing", "nothing missing"])
def test_the_elbo_trains_it_where_something_is_missing(pattern: str) -> None:
    made = program()
    observed = {"some": OBSERVED, "all missing": torch.zeros_like(OBSERVED), "nothing missing": torch.ones_like(OBSERVED)}[pattern]
    loss = made.loss(batch(observed))
    loss.backward()
    assert bool(loss.isfinite())
    gradients = [p.grad for p in made.guide.treat.parameters()]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)
    assert any(bool(g.any()) for g in gradients if g is not None) == (pattern != "nothing missing")
    assert {id(p) for p in made.guide.treat.parameters() if p.dim() > 1} <= {id(p) for p in made.regularised()}


@pytest.mark.slow
def test_it_learns_the_posterior_of_a_gaussian_prior() -> None:
    """Given latents, one component, no outcome to speak of: the best Normal for a missing latent is the exact conditional."""
    torch.manual_seed(0)
    copula = make_copula("gaussian", 2, tau=0.5)
    prior = CopulaMixture(torch.zeros(1), torch.zeros(1, 2, dtype=torch.long), torch.zeros(2, 1, 1), torch.ones(2, 1, 1), copula)
    made = Amortized(2, 1)
    observed = torch.tensor([True, False]).expand(128, 2)
    optimiser = torch.optim.Adam(made.parameters(), lr=1e-2)
    for step in range(300):
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / 300)
        z, log_q = made(prior, torch.randn(128, 2, 1), observed)
        loss = (log_q.sum(-1) - prior.log_prob(z)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x = torch.tensor([-1.5, 0.0, 1.5])[:, None, None].expand(3, 2, 1)
    loc, scale = made.parameters_of((x, torch.zeros_like(x)), observed[:3])
    rho = float(torch.sin(torch.tensor(torch.pi / 4)))  # Gaussian copula: tau = 2 / pi arcsin rho
    assert float((loc[:, 1, 0] - rho * x[:, 0, 0]).abs().max()) < 0.1
    assert float((scale[:, 1, 0] - (1 - rho**2) ** 0.5).abs().max()) < 0.1


def test_in_evaluation_a_row_does_not_depend_on_what_others_have() -> None:
    made = program().eval()
    noise = torch.rand(6, M), torch.randn(6, 2, M, D)
    rows = batch(OBSERVED)
    with torch.no_grad():
        before = made.guide.draw(rows, made.mixture(), noise)
        for m in range(M):
            observed = OBSERVED.clone()
            observed[1:, m] = False
            after = made.guide.draw(rows.hiding(observed), made.mixture(), noise)
            assert after[:, 0].equal(before[:, 0])
            same = observed[1:].eq(OBSERVED[1:]).all(1)
            assert after[:, 1:][:, same].equal(before[:, 1:][:, same])
    assert bool(before.isfinite().all())
