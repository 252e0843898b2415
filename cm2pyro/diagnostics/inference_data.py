"""A fit as ArviZ sees it: groups of labelled arrays, and the netCDF file that holds them."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from cm2pyro import sites
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.scaling import Standard
from cm2pyro.files import atomic
from cm2pyro.inference.draws import shared_noise
from cm2pyro.inference.program import Program
from cm2pyro.models import as_head

Groups = dict[str, xr.Dataset]
Values = dict[str, Tensor]  # site -> (C, S, …)
_ORDER = "components ordered by the first modality's first latent dimension in every draw (coupling full: each modality by its own)"


@dataclass(frozen=True)
class Rows:
    """What is known of the rows: their data, the split of each ("" where there is none), whether the fit learned from them."""

    dataset: Dataset
    split: NDArray[np.str_]
    trained: NDArray[np.bool_]
    classes: tuple[str, ...]
    scaling: Standard | None


def inference_groups(program: Program, rows: Rows, draws: int, completions: int, seed: int, attributes: Mapping[str, Any]) -> Groups:
    """Groups for ArviZ, with dims chain and draw and named ones: modality, component, latent, pair, sample_id.

    posterior, prior: the global sites, components in order, and Kendall's tau per pair, which knows no labels. log_likelihood: log p(y | x,
    global sites), latents integrated over `completions` draws (its mean over them is biased downwards a little; 1 where latents
    are given and complete makes no difference). posterior_predictive: outcomes. observed_data: labels. These three hold labelled rows only.
    constant_data: what each row shows, its split, and whether the fit learned from it.

    Args:
        draws: kept of the global sites, over all chains; of point estimates there is one, and what else is drawn, `draws` times: their
            prior, latents, and outcomes.
    """
    chained = posterior_values(program, draws, seed)
    chains, kept = chained[sites.WEIGHTS].shape[:2]
    point = chains * kept == 1
    labelled = rows.dataset.take(rows.dataset.labelled.nonzero()[:, 0].tolist())
    score, outcome = _outcomes(program, labelled, chained, draws if point else completions, draws if point else 1, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        many = [{name: prior.sample() for name, prior in _priors(program).items()} for _ in range(draws if point else chains * kept)]
    prior = program.structure.ordered({name: torch.stack([one[name] for one in many])[None].cpu() for name in many[0]})
    labels = labelled.labels.numpy()
    if rows.scaling is not None:  # back to the labels' own units
        score = score - np.log(float(rows.scaling.scale[0]))
        outcome, labels = (rows.scaling.inverse(values.reshape(-1, 1)).reshape(values.shape) for values in (outcome, labels))
    several = labels.ndim == 2
    dims = ("sample_id", "label") if several else ("sample_id",)
    coordinates: dict[str, Any] = {"sample_id": np.array(labelled.ids, dtype=object)}
    if several:
        coordinates["label"] = np.array(rows.classes, dtype=object)
    over: dict[str, Any] = {"chain": np.arange(chains), "draw": np.arange(kept)}
    predicted = over | {"draw": np.arange(outcome.shape[1])}
    ids = np.array(rows.dataset.ids, dtype=object)
    constant = {
        "observed": (("sample_id", "modality"), rows.dataset.observed.numpy()),
        "split": (("sample_id",), rows.split.astype(object)),
        "trained": (("sample_id",), rows.trained),
    }
    common = dict(attributes) | {"inference": how(program), "component_order": _ORDER}
    made = {
        "posterior": _sites(program, chained),
        "prior": _sites(program, prior),
        "log_likelihood": xr.Dataset({"outcome": (("chain", "draw", "sample_id"), score)}, over | {"sample_id": coordinates["sample_id"]}),
        "posterior_predictive": xr.Dataset({"outcome": (("chain", "draw", *dims), outcome)}, predicted | coordinates),
        "observed_data": xr.Dataset({"outcome": (dims, labels)}, coordinates),
        "constant_data": xr.Dataset(constant, {"sample_id": ids, "modality": np.array(rows.dataset.names, dtype=object)}),
    }
    if not len(labelled):
        made = {name: group for name, group in made.items() if "outcome" not in group}
    return {name: group.assign_attrs(common) for name, group in made.items()}


def how(program: Program) -> str:
    """By what the global sites were inferred."""
    guide = program.config.guide.globals
    if program.chains is not None:
        return "NUTS, encoders held at the end of SVI"
    return f"SVI, guide {guide}" if program.random else "SVI, point estimates (MAP)"


def posterior_values(program: Program, draws: int, seed: int) -> Values:
    """Draws of the global sites, site -> (C, S, …), components in order; C S at most `draws`, 1 where there is a point estimate only."""
    if program.chains is not None:
        values = program.chains.values
        chains, length = values[sites.WEIGHTS].shape[:2]
        rows = torch.linspace(0, length - 1, max(1, min(length, draws // chains))).round().long()
        values = {name: value[:, rows] for name, value in values.items()}
    elif program.random:
        many = program.draw_globals(draws, seed)
        values = {name: torch.stack([one[name] for one in many])[None] for name in many[0]}
    else:
        values = {name: value[None, None] for name, value in program.values().items()}
    return program.structure.ordered({name: value.detach().cpu() for name, value in values.items()})


def whole_posterior(program: Program) -> xr.Dataset:
    """Every draw of the chains, as in `posterior`: what R-hat and effective draws are to be told from."""
    assert program.chains is not None
    return _sites(program, posterior_values(program, program.chains.draws, seed=0))


def _priors(program: Program) -> dict[str, Any]:
    return program.model.priors | program.model.priors_of_head


def pairwise_tau(program: Program, values: Values) -> tuple[list[str], Tensor]:
    """Names of the pairs of modalities, and Kendall's tau inside components: (…, pairs, D), or (…, pairs) where the copula is tied."""
    names = program.guide.names
    pairs = list(combinations(range(len(names)), 2))
    own = {name: value for name, value in values.items() if name.startswith(sites.COPULA)}
    lead = values[sites.WEIGHTS].shape[:-1]
    count = lead.numel()
    flat = {name: value.flatten(0, len(lead) - 1) for name, value in own.items()}
    like = values[sites.LOCS]
    taus = []
    for i in range(count):
        tau = program.structure.copula.build({name: value[i] for name, value in flat.items()}, like).tau()
        # Families of one parameter have one tau for all pairs.
        matrix = tau.dim() >= 2 and tau.shape[-1] == tau.shape[-2] == len(names)
        taus.append(torch.stack([tau[..., a, b] if matrix else tau for a, b in pairs]) if pairs else like.new_zeros(0))
    stacked = torch.stack(taus)
    return [f"{names[a]}~{names[b]}" for a, b in pairs], stacked.reshape(*lead, *stacked.shape[1:])


def _sites(program: Program, values: Values) -> xr.Dataset:
    names = np.array(program.guide.names, dtype=object)
    K, D = values[sites.LOCS].shape[-2:]
    component = "component" if len(program.structure.assignment) == K else "joint_component"
    known: dict[str, tuple[str, ...]] = {
        sites.WEIGHTS: (component,),
        sites.LOCS: ("modality", "component", "latent"),
        sites.SCALES: ("modality", "component", "latent"),
        sites.HEAD: ("output", "feature"),
        sites.HEAD_BIAS: ("output",),
        sites.copula("weights"): ("family",),
    }
    variables: dict[str, Any] = {}
    for name, value in values.items():
        dims = known.get(name)
        if dims is None:  # of the copula: per latent dimension unless tied, of elliptical families a Cholesky factor
            inner = value.dim() - 2
            lead = ("latent",) if program.structure.copula.batch_shape else ()
            dims = (*lead, *("modality", "modality_other")[: inner - len(lead)])
        variables[name] = (("chain", "draw", *dims), value.numpy())
    pairs, tau = pairwise_tau(program, values)
    if pairs and program.structure.family != "independence":
        variables["tau"] = (("chain", "draw", "pair", "latent")[: tau.dim()], tau.numpy())
    coordinates: dict[str, Any] = {
        "chain": np.arange(len(values[sites.WEIGHTS])),
        "draw": np.arange(values[sites.WEIGHTS].shape[1]),
        "modality": names,
        "modality_other": names,
        "component": np.arange(K),
        "latent": np.arange(D),
        "pair": np.array(pairs, dtype=object),
        "family": np.array(program.structure.families, dtype=object),
    }
    used = {dim for dims, _ in variables.values() for dim in dims}
    return xr.Dataset(variables, {name: value for name, value in coordinates.items() if name in used})


def _outcomes(program: Program, dataset: Dataset, values: Values, completions: int, each: int, seed: int) -> tuple[Any, Any]:
    """log p(y | x, draw), (C, S, n), and `each` outcomes of every draw, (C, S each, n, …), float64."""
    chains, kept = values[sites.WEIGHTS].shape[:2]
    flat = {name: value.flatten(0, 1) for name, value in values.items()}
    model, guide = program.model, program.guide
    like = next(program.parameters())
    noise = shared_noise(completions, len(guide.names), program.structure.dim, seed, like.device)
    generator = torch.Generator().manual_seed(seed)
    training = program.training
    program.eval()
    scores: list[list[Tensor]] = [[] for _ in range(chains * kept)]
    drawn: list[list[Tensor]] = [[] for _ in range(chains * kept)]
    with torch.no_grad():
        for batch in dataset.batches(1024):
            batch = batch.to(like.device)
            represented = guide.represent(batch)
            known = model.likelihood.known(batch.labels)
            for i in range(chains * kept):
                own = {name: value[i].to(like) for name, value in flat.items()}
                z = guide.draw(batch, program.build(own), noise, represented)
                outputs, log_weights = model.predictive(z, batch.observed, as_head(own))
                score = model.likelihood.log_score(model.likelihood.predictive(outputs), batch.labels, log_weights)
                scores[i].append((score if known is None else torch.where(known, score, 0.0).sum(-1)).cpu())
                weights = outputs.new_ones(outputs.shape[:2]) if log_weights is None else log_weights.exp()
                pick = torch.multinomial(weights.mT.cpu(), each, replacement=True, generator=generator)
                chosen = outputs.cpu().gather(0, pick.mT[..., None].expand(each, *outputs.shape[1:]))
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
                    drawn[i].append(model.likelihood.distribution(chosen).sample())
    program.train(training)
    if not len(dataset):
        return np.zeros((chains, kept, 0)), np.zeros((chains, kept * each, 0))
    score = torch.stack([torch.cat(part) for part in scores]).double()
    outcome = torch.cat([torch.cat(part, 1) for part in drawn]).double()
    return score.unflatten(0, (chains, kept)).numpy(), outcome.unflatten(0, (chains, kept * each)).numpy()


def to_arviz(groups: Groups) -> Any:
    """The groups as ArviZ's own object: InferenceData (0.x), or a DataTree (1.x)."""
    import arviz as az  # slow to import, and needed here alone

    if hasattr(az, "InferenceData"):
        return az.InferenceData(**groups)  # type: ignore[arg-type]
    return xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})


def write_groups(groups: Groups, path: str | Path) -> None:
    """Write posterior.nc whole; ArviZ 0.x and 1.x read it. Raises DataError: a path that cannot be written."""
    with atomic(path) as temporary:
        xr.Dataset(attrs=next(iter(groups.values())).attrs).to_netcdf(temporary, mode="w", engine="h5netcdf")
        for name, group in groups.items():
            encoding = {key: {"zlib": True, "complevel": 1} for key, variable in group.data_vars.items() if variable.dtype.kind in "fi"}
            group.to_netcdf(temporary, mode="a", group=name, engine="h5netcdf", encoding=encoding)
