"""A report's material with known truth, made without a fit; and what a section says."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cm2pyro.config import Config
from cm2pyro.data.dataset import Dataset
from cm2pyro.diagnostics.evaluation import Evaluation
from cm2pyro.diagnostics.report.material import Material, Source
from cm2pyro.diagnostics.report.parts import Figure, Section, Table
from cm2pyro.distributions.copulas import make_copula
from cm2pyro.distributions.copulas.independence import IndependenceCopula
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.inference.predict import Prediction


def mixture(M: int = 3, K: int = 2, D: int = 2, tau: float = 0.5, family: str = "gaussian", apart: float = 3.0) -> CopulaMixture:
    """K components on a line, `apart` sd from one another in every modality and dimension, weights falling."""
    weights = torch.arange(K, 0, -1).double()
    locs = apart * (torch.arange(K).double() - (K - 1) / 2)[None, :, None].expand(M, K, D)
    assignment = torch.arange(K)[:, None].expand(K, M)
    # One modality has nothing to be tied to.
    copula = make_copula(family, M, tau=torch.full((D,), tau, dtype=torch.float64)) if M > 1 else IndependenceCopula(1, locs)
    return CopulaMixture((weights / weights.sum()).log(), assignment, locs, torch.ones(M, K, D, dtype=torch.float64), copula)


def record(epoch: int, names: tuple[str, ...], **changes: Any) -> dict[str, Any]:
    """A healthy line of metrics.jsonl."""
    pairs = [f"{a}~{b}" for i, a in enumerate(names) for b in names[i + 1 :]]
    line = {
        "epoch": epoch, "elbo": -0.7, "outcome": -0.6 + 0.01 * epoch, "kl": 3.0, "val_log_loss": 0.6 - 0.01 * epoch,
        "val_auroc": 0.7, "effective_components": dict.fromkeys(names, 1.9), "tau": dict.fromkeys(pairs, 0.1 * epoch),
        "kl_per_modality": dict.fromkeys(names, 1.0), "latent_sd": dict.fromkeys(names, 1.0), "copula_gradient": 0.1 / epoch,
    }  # fmt: skip
    return line | changes


def material(
    truth: CopulaMixture | None = None,
    n: int = 400,
    names: tuple[str, ...] | None = None,
    classes: tuple[str, ...] = ("0", "1"),
    missing: float = 0.2,
    seed: int = 0,
    task: str = "binary",
    source: Source | None = None,
    fitted: CopulaMixture | None = None,
    **sections: dict[str, Any],
) -> Material:
    """n rows drawn from `truth`, shown under `fitted` (by default the truth itself), with predictions that are calibrated."""
    truth = mixture() if truth is None else truth
    fitted = truth if fitted is None else fitted
    M, K, D = truth.locs.shape
    names = tuple(f"m{m}" for m in range(M)) if names is None else names
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    z = truth.rsample((n,))
    observed = torch.from_numpy(random.random((n, M)) >= missing)
    log_r = fitted.responsibilities(z, observed)
    component = torch.distributions.Categorical(logits=log_r).sample()
    z = torch.where(observed[..., None], z, torch.zeros((), dtype=z.dtype))
    sections = {"latent": {"dim": D}, "prior": {"components": K}, "fit": {"epochs": 9}} | sections
    columns = {"type": task, **({"labels": list(classes)} if task == "multilabel" else {})}
    config = Config.from_dict(
        {"task": columns, "modalities": {f"m{m}": {"kind": "embedding", "encoder": "mlp"} for m in range(M)}} | sections
    )
    p, labels = _outcomes(random, n, task, len(classes))
    ids = tuple(f"patient{i}" for i in range(n))
    dataset = Dataset(names, {name: {} for name in names}, observed, torch.from_numpy(labels), ids, ids)
    score = np.zeros(labels.shape)
    prediction = Prediction(p, np.full_like(p, 0.1), p - 0.1, p + 0.1, score)
    return Material(
        source=Source("run", "manifest.csv") if source is None else source,
        config=config,
        names=names,
        classes=classes,
        given=(),
        mixture=fitted,
        epochs={0: fitted, 1: fitted, 3: fitted},
        z=z,
        observed=observed,
        log_r=log_r,
        component=component,
        history=[record(epoch, names) for epoch in (1, 2, 3)],
        splits=np.where(np.arange(n) % 4 == 0, "test", "train"),
        evaluation=Evaluation(task, classes, dataset, prediction, None),
        labelled=np.arange(n),
    )


def _outcomes(random: np.random.Generator, n: int, task: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (n, C) and outcomes that follow them."""
    if task == "regression":
        mean = random.normal(size=(n, 1))
        return mean, (mean[:, 0] + random.normal(size=n)).astype(np.float32)
    if task == "multilabel":
        p = random.beta(1, 3, (n, classes))
        return p, (random.random((n, classes)) < p).astype(np.int64)
    p = random.dirichlet(np.ones(classes), n)
    return p, (random.random(n)[:, None] > p.cumsum(1)).sum(1).clip(0, classes - 1)


def without_labels(m: Material) -> Material:
    return replace(m, evaluation=None, labelled=np.zeros(0, dtype=np.int64))


def texts(section: Section, level: str = "warning") -> list[str]:
    return [finding.text for finding in section.findings if finding.level == level]


def table(section: Section, at: int = 0) -> Table:
    return [part for part in section.parts if isinstance(part, Table)][at]


def pictures(section: Section) -> int:
    return sum(len(part.pictures) for part in section.parts if isinstance(part, Figure))
