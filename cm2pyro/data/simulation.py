"""A three-modality data set whose truth is known: latents from a copula mixture, an outcome, missing modalities.

The population (mixture, outcome, missingness) depends on the settings but not on the seed, so two seeds give
training and test data of one population. Every stage draws from a stream of its own: the same seed with another
missing rate or mechanism gives the same patients with other gaps.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cm2pyro.data.simulated_modalities import images, notes, series_table
from cm2pyro.data.simulated_truth import MODALITIES, Population, SimulationSettings, auroc, choose, population
from cm2pyro.data.splits import assign_splits
from cm2pyro.files import check_out_folder, fresh_folder, write_text

__all__ = ["Population", "Sample", "SimulationSettings", "describe", "draw", "population", "simulate"]


@dataclass(frozen=True)
class Sample:
    """N draws of a population: latents (N, M, D), probability (N, C), label (N,), observed (N, M) bool, subject (N,), split (N,)."""

    latents: np.ndarray
    probability: np.ndarray
    label: np.ndarray
    observed: np.ndarray
    subject: np.ndarray
    split: np.ndarray


def draw(settings: SimulationSettings, truth: Population) -> Sample:
    """Draw a data set, without its time series, images and notes.

    subject_i : a new one with probability 1 / 1.2, else that of sample i − 1 (latents are independent all the same)
    split     : subjects in random order, 0.6 train, 0.2 val, 0.2 test
    """
    N = settings.samples
    latents = truth.draw_latents(N, settings.seed)
    probability = truth.probabilities(latents)
    label = choose(probability, _stream(settings.seed, "label"))
    observed = _stream(settings.seed, "missing").random((N, len(MODALITIES))) >= truth.missing_probability(latents, label)
    rng = _stream(settings.seed, "subject")
    new = rng.random(N) < 1 / 1.2
    new[0] = True
    subject = np.array([f"p{i:0{_width(N)}d}" for i in np.cumsum(new)], dtype=object)
    splits = assign_splits(subject, {"train": 0.6, "val": 0.2, "test": 0.2}, settings.seed)
    return Sample(latents, probability, label, observed, subject, np.array([splits[name] for name in subject]))


def simulate(out: str | Path, settings: SimulationSettings, overwrite: bool = False) -> dict[str, Any]:
    """Write a simulated data set and its truth; the same settings give the same bytes.

    Files in `out`: manifest.csv, series.parquet (only samples that have the series), images/<sample_id>.png,
    latents.parquet (all latents, also of what is missing, and the true outcome probabilities), truth.json.

    Returns:
        the content of truth.json.

    Raises:
        ConfigError: a setting that the family cannot have, or an output folder that would lose something.
        DataError: the folder cannot be written.
    """
    import pandas as pd
    import torch
    from torchvision.io import write_png

    check_out_folder(Path(out), overwrite, "manifest.csv")  # before the work, not after
    truth = population(settings)
    sample = draw(settings, truth)
    N, a = settings.samples, truth.standardised(sample.latents)
    ids = np.array([f"s{i:0{_width(N)}d}" for i in range(1, N + 1)], dtype=object)
    has = dict(zip(MODALITIES, sample.observed.T, strict=True))
    texts = notes(a[:, 2], _stream(settings.seed, "note"))
    manifest: dict[str, Any] = {
        "sample_id": ids,
        "subject_id": sample.subject,
        "split": sample.split,
        "label": sample.label,
        "image": np.where(has["image"], "images/" + ids + ".png", ""),
        "note": np.where(has["note"], np.array(texts, dtype=object), ""),
    }
    latents: dict[str, Any] = {"sample_id": ids}
    for m, name in enumerate(MODALITIES):
        manifest[f"latent_{name}"] = [
            json.dumps(row) if seen else "" for row, seen in zip(sample.latents[:, m].tolist(), has[name], strict=True)
        ]
        latents |= {f"latent_{name}_{d}": sample.latents[:, m, d] for d in range(settings.dim)}
    binary = settings.classes == 2
    latents |= {"probability" if binary else f"probability_{c}": sample.probability[:, c] for c in range(int(binary), settings.classes)}
    series = series_table(ids, a[:, 0], _stream(settings.seed, "series"))
    described = describe(settings, truth, sample)

    with fresh_folder(out, overwrite, "manifest.csv") as folder:
        pd.DataFrame(manifest).to_csv(folder / "manifest.csv", index=False, lineterminator="\n")
        series[series["sample_id"].isin(ids[has["series"]])].to_parquet(folder / "series.parquet", index=False)
        pd.DataFrame(latents).to_parquet(folder / "latents.parquet", index=False)
        (folder / "images").mkdir()
        for name, seen, pixel in zip(ids, has["image"], images(a[:, 1], _stream(settings.seed, "image")), strict=True):
            if seen:
                write_png(torch.from_numpy(pixel)[None], str(folder / "images" / f"{name}.png"))
        write_text(folder / "truth.json", json.dumps(described, indent=2) + "\n")
    return described


def describe(settings: SimulationSettings, truth: Population, sample: Sample) -> dict[str, Any]:
    """The content of truth.json: settings, the population's parameters, and what this sample is like.

    `bayes_auroc` is that of the true probabilities, all latents known, against the labels of the test rows: no model can
    be expected to do better on them. `bayes_auroc_expected` is its mean over labels drawn again. Null where undefined.
    """
    test = sample.split == "test"
    probability, label = sample.probability[test], sample.label[test]
    ceiling = {
        "bayes_auroc": auroc(probability, np.eye(settings.classes)[label]),
        "bayes_auroc_expected": auroc(probability, probability),
    }
    prior, copula = truth.prior, truth.prior.copula
    df = getattr(copula, "df", None)  # only Student-t has it
    return {
        "settings": asdict(settings),
        "modalities": list(MODALITIES),
        "weights": prior.log_weights.exp().tolist(),
        "assignment": prior.assignment.tolist(),
        "locs": prior.locs.tolist(),
        "scales": prior.scales.tolist(),
        "family": settings.family,
        "tau": settings.tau,
        "theta": copula.theta.item() if copula.theta.numel() == 1 else None,
        "df": None if df is None else float(df),
        "standardisation": {"formula": "a = (z - mean) / sd", "mean": truth.mean.tolist(), "sd": truth.sd.tolist()},
        "outcome": {
            "formula": "logit of class c >= 1 against class 0: intercept + sum(linear * a) + product * a[series, 0] * a[image, 0]",
            "intercept": truth.intercept.tolist(),
            "linear": truth.linear.tolist(),
            "product": truth.product.tolist(),
        },
        "missingness": {
            "mechanism": settings.mechanism,
            "formula": "P(missing) = probability, or log odds = intercept + slopes on standardised latents and on outcome (1 if label > 0)",
            "rules": truth.missingness,
        },
        "prevalence": float((sample.label > 0).mean()),
        "class_shares": {str(c): float((sample.label == c).mean()) for c in range(settings.classes)},
        "coverage": dict(zip(MODALITIES, sample.observed.mean(axis=0).tolist(), strict=True)),
        "nothing_observed": int((~sample.observed.any(axis=1)).sum()),
        "splits": {name: int((sample.split == name).sum()) for name in ("train", "val", "test")},
        "subjects": len(set(sample.subject)),
        **{key: None if math.isnan(value) else value for key, value in ceiling.items()},
    }


def _stream(seed: int, purpose: str) -> np.random.Generator:
    """A generator of its own for each purpose, so that a change to one stage leaves the others as they were."""
    return np.random.default_rng([seed, *purpose.encode()])


def _width(samples: int) -> int:
    """Digits of an id: at least five, and enough that ids sort in the order of the rows."""
    return max(5, len(str(samples)))
