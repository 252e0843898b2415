"""Leave-one-subject-out around the maximum, and the search over families and numbers of components."""

import dataclasses
from typing import Any

import pyro.distributions as dist
import pytest
import torch

from cm2pyro.config import Config, Priors
from cm2pyro.diagnostics.family_choice import FamilyChoice
from cm2pyro.distributions import CopulaMixture, make_copula
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.inference import leave_out as leaving
from cm2pyro.inference import select as selecting
from cm2pyro.inference.free_sites import FreeSites
from cm2pyro.inference.leave_out import LeftOut, leave_out
from cm2pyro.inference.maximise import maximise
from cm2pyro.inference.search import split
from cm2pyro.inference.select import candidate_structures, select
from cm2pyro.inference.start import start_values
from cm2pyro.models.priors import site_priors

pytestmark = pytest.mark.slow


def latents(family: str, n: int, seed: int = 0, K: int = 2) -> torch.Tensor:
    """(n, 2, 1) of K components 5 sd apart, tau 0.5."""
    torch.manual_seed(seed)
    copula = make_copula(family, 2, tau=torch.tensor(0.5, dtype=torch.float64))
    locs = torch.tensor([[[0.0], [5.0]], [[5.0], [0.0]]], dtype=torch.float64)[:, :K]
    assignment = torch.arange(K)[:, None].expand(K, 2)
    return CopulaMixture(torch.zeros(K).double(), assignment, locs, torch.ones_like(locs), copula).rsample((n,))


def everything(z: torch.Tensor) -> torch.Tensor:
    return torch.ones(z.shape[:2], dtype=torch.bool)


def fitted(structure: MixtureStructure, z: torch.Tensor, observed: torch.Tensor) -> tuple[dict, dict]:
    priors = site_priors(structure, Priors())
    start = start_values(structure, z, observed, 2, 0)
    return priors, maximise(structure, priors, start, list(start), z, observed, steps=300)[0]


def without(structure: MixtureStructure, priors: dict, values: dict, z: torch.Tensor, observed: torch.Tensor, out: torch.Tensor) -> float:
    """Log density of the rows `out` under the fit to the others."""
    found, _ = maximise(structure, priors, values, list(values), z[~out], observed[~out], steps=300)
    return float(structure.build(found).log_prob(z[out], observed[out]).sum())


@pytest.mark.parametrize(("family", "rows_each"), [("clayton", 1), ("student_t", 1), ("gumbel", 3)])
def test_jackknife_is_near_exact_refits(family: str, rows_each: int) -> None:
    z = latents(family, 240)
    observed = torch.rand(240, 2, generator=torch.Generator().manual_seed(1)) < 0.85
    observed[:, 0] |= ~observed.any(1)
    subjects = torch.arange(240) // rows_each
    structure = MixtureStructure(2, 1, 2, family=family)
    priors, values = fitted(structure, z, observed)
    found = leave_out(structure, priors, values, z, observed, subjects)
    inside = structure.build(found.values).log_prob(z, observed)
    drop = torch.zeros(len(found.elpd), dtype=inside.dtype).index_add(0, subjects, inside) - found.elpd
    assert found.effective == pytest.approx(float(drop.sum()))
    order = drop.argsort(descending=True)
    for s in [*order[:3].tolist(), *order[10:60:25].tolist()]:
        out = subjects == s
        exact = float(inside[out].sum()) - without(structure, priors, values, z, observed, out)
        # The jackknife is of first order: its error is of the order of the square of what it estimates.
        assert float(drop[s]) == pytest.approx(exact, abs=0.005 + float(drop[s]) ** 2)


def test_differences_agree_with_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    z, subjects = latents("clayton", 300), torch.arange(300)
    observed = everything(z)
    elpd: dict[str, dict[str, torch.Tensor]] = {"jackknife": {}, "folds": {}}
    for family in ("clayton", "gaussian"):
        structure = MixtureStructure(2, 1, 2, family=family)
        priors, values = fitted(structure, z, observed)
        found = leave_out(structure, priors, values, z, observed, subjects)
        assert found.refits <= 3
        elpd["jackknife"][family] = found.elpd
        with monkeypatch.context() as patch:
            patch.setattr(leaving, "MOST_PARAMETERS", 8)
            folded = leave_out(structure, priors, values, z, observed, subjects, folds=10)
        assert folded.refits == 300
        elpd["folds"][family] = folded.elpd
        # Nine tenths of the rows: about p/2 (10/9 - 1) nats worse, p = 10; the rest is which rows lie in which fold.
        assert float((found.elpd - folded.elpd).sum()) == pytest.approx(0.6, abs=3)
    gains = [float((side["clayton"] - side["gaussian"]).sum()) for side in elpd.values()]
    assert gains[0] == pytest.approx(gains[1], rel=0.1)
    assert min(gains) > 5


def test_a_far_subject_is_left_out_exactly() -> None:
    z = latents("gaussian", 150, K=1)
    z[0] = torch.tensor([[12.0], [-12.0]])
    observed, structure = everything(z), MixtureStructure(2, 1, 1)
    priors, values = fitted(structure, z, observed)
    found = leave_out(structure, priors, values, z, observed, torch.arange(150))
    assert found.refits == 1
    out = torch.arange(150) == 0
    exact = without(structure, priors, found.values, z, observed, out)
    assert float(found.elpd[0]) == pytest.approx(exact, rel=0.02)
    assert exact < float(structure.build(values).log_prob(z[out], observed[out])) - 5


def test_a_saddle_is_left() -> None:
    z = latents("gaussian", 300)
    observed = everything(z)
    one = MixtureStructure(2, 1, 1)
    _, single = fitted(one, z, observed)
    # Two components that are one: every gradient vanishes and the likelihood is far below that of two.
    twice = {name: value.repeat_interleave(2, 1) if name in ("locs", "scales") else value for name, value in single.items()}
    twice["weights"] = torch.tensor([0.5, 0.5]).double()
    two = dataclasses.replace(one, components=2)
    priors = site_priors(two, Priors())
    found = leave_out(two, priors, twice, z, observed, torch.arange(300))
    _, best = fitted(two, z, observed)
    assert float(found.elpd.sum()) == pytest.approx(float(leave_out(two, priors, best, z, observed, torch.arange(300)).elpd.sum()), abs=0.5)


@pytest.mark.parametrize(
    ("family", "families", "count"),
    [("gaussian", (), 3), ("student_t", (), 4), ("clayton", (), 1), ("mixture", ("clayton", "student_t"), 1 + 4 + 1)],
)
def test_free_parameters(family: str, families: tuple[str, ...], count: int) -> None:
    structure = MixtureStructure(3, 2, 4, family=family, families=families, tied=True)
    torch.manual_seed(0)
    values = {name: prior.sample() for name, prior in site_priors(structure, Priors()).items()}
    assert len(FreeSites(structure, site_priors(structure, Priors()), values).vector) == 3 + 2 * 3 * 4 * 2 + count


def test_family_and_components_are_found_with_modalities_missing() -> None:
    z = latents("clayton", 700, seed=3)
    observed = torch.rand(700, 2, generator=torch.Generator().manual_seed(1)) < 0.9
    z = torch.where(observed[..., None], z, torch.nan)
    seen = []
    found = select(
        MixtureStructure(2, 1, 1), z, observed, ["gaussian", "clayton", "mixture"], [1, 2], report=lambda c, s: seen.append(c.family)
    )
    assert seen == ["gaussian", "clayton", "mixture"] * 2
    choice = FamilyChoice.of(found, Config.from_dict({"modalities": {"a": {"kind": "embedding", "encoder": "identity"}}}), seed=0)
    assert (choice.chosen.family, choice.chosen.components) == ("clayton", 2)
    assert len(choice.chosen.fit.elpd) == int(observed.any(1).sum())
    assert (choice.config.prior.copula.family, choice.config.prior.components) == ("clayton", 2)
    by_name = {(c.family, c.components): c for c in found}
    # The mixture holds Clayton: its maximum cannot be lower by more than its prior costs.
    assert by_name["mixture", 2].optima[0] > by_name["clayton", 2].optima[0] - 5
    assert by_name["mixture", 2].simplicity > by_name["gaussian", 2].simplicity > by_name["mixture", 1].simplicity
    assert "Recommended: clayton, K = 2" in choice.text()
    table = choice.frame()
    assert table["weight"].sum() == pytest.approx(1)
    assert table["picked"].sum() == pytest.approx(1)
    assert table.query("chosen == 1")["family"].tolist() == ["clayton"]
    assert table["difference"].iloc[0] == 0
    assert (table["difference"].diff().dropna() <= 0).all()


def test_priors_from_python_count_but_the_copulas_own() -> None:
    z = latents("gaussian", 120, K=1)
    arguments = (MixtureStructure(2, 1, 1), z, everything(z), ["gaussian", "clayton"], [1])
    plain = select(*arguments)
    # Data pull a location with precision 120 (1 sd each), this prior to 3, from 0 and from 5, with 10,000.
    for candidate in select(*arguments, given={"locs": lambda shape: dist.Normal(3.0, 0.01).expand(shape)}):
        assert float((candidate.fit.values["locs"] - 3).abs().max()) < 0.1
    for before, after in zip(plain, select(*arguments, given={"copula": dist.LKJCholesky(2, torch.tensor(50.0))}), strict=True):
        torch.testing.assert_close(after.fit.elpd, before.fit.elpd, rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match=r"priors\.locs: shape \(2, 2, 1\) does not expand"):
        select(*arguments, given={"locs": dist.Normal(torch.zeros(2, 2, 1), 1.0)})


def test_folds_for_one_family_are_folds_for_all_of_its_k(monkeypatch: pytest.MonkeyPatch) -> None:
    def forced(structure: MixtureStructure, *given: Any) -> LeftOut:
        return leave_out(structure, *given[:-1], given[-1] or (structure.family == "frank" and structure.components == 1))

    monkeypatch.setattr(selecting, "leave_out", forced)
    z, said = latents("gaussian", 120, K=1), []
    found = select(
        MixtureStructure(2, 1, 1), z, everything(z), ["gaussian", "frank"], [1, 2], restarts=1, report=lambda c, s: said.append(c.family)
    )
    assert [(c.family, c.components, c.fit.in_folds) for c in found] == [
        ("gaussian", 1, True), ("frank", 1, True), ("gaussian", 2, False), ("frank", 2, False),
    ]  # fmt: skip
    assert said == ["gaussian", "frank", "gaussian", "gaussian", "frank"]
    assert found[0].fit.refits == 120


def test_rows_of_a_subject_count_once() -> None:
    z = latents("gaussian", 120, K=1).repeat(2, 1, 1)
    once, twice = (
        select(MixtureStructure(2, 1, 1), z, everything(z), ["gaussian", "frank"], [1], subjects)
        for subjects in (None, torch.arange(120).repeat(2))
    )
    # Left out by rows, the copy of each row stays in the fit and vouches for it.
    assert twice[0].fit.effective == pytest.approx(2 * once[0].fit.effective, rel=0.05)
    assert len(twice[0].fit.elpd) == 120


@pytest.mark.parametrize("coupling", ["shared", "full"])
def test_splitting_keeps_the_weight_of_what_is_split(coupling: str) -> None:
    old = MixtureStructure(2, 1, 2, coupling)
    torch.manual_seed(0)
    values = {name: prior.sample() for name, prior in site_priors(old, Priors()).items()}
    new = dataclasses.replace(old, components=3)
    more = split(new, values)
    assert float(more["weights"].sum()) == pytest.approx(1)
    for m in range(2):
        before, after = old.build(values).marginal_log_weights(m).exp(), new.build(more).marginal_log_weights(m).exp()
        h = int(before.argmax())
        assert float(after[h] + after[2]) == pytest.approx(float(before[h]), abs=1e-6)
        assert float((more["locs"][m, h] - more["locs"][m, 2]).abs()) == pytest.approx(float(values["scales"][m, h]), rel=1e-5)


def test_what_cannot_be_selected_from() -> None:
    two = MixtureStructure(2, 1, 1)
    for families, components, said in [
        (["gausian", "frank"], [1], "did you mean 'gaussian'"),
        (["frank", "frank"], [1], "name each once"),
        (["frank", "mixture"], [1], "expected two or more"),
        (["frank"], [1], "nothing to choose"),
        (["frank"], [1, 1], "different numbers"),
        (["frank"], [0, 1], "from 1 on"),
    ]:
        with pytest.raises(ConfigError, match=said):
            candidate_structures(two, families, components)
    with pytest.raises(ConfigError, match="clayton_90"):
        candidate_structures(MixtureStructure(3, 1, 1), ["gaussian", "clayton_90"], [1])
    with pytest.raises(ConfigError, match="choose K alone"):
        candidate_structures(MixtureStructure(1, 1, 1), ["gaussian", "frank"], [1])
    z = latents("gaussian", 25)
    observed = everything(z)
    observed[10:] = False
    with pytest.raises(DataError, match="found 10 subjects"):
        select(two, z, observed, ["frank"], [1, 2])
