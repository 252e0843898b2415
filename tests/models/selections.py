"""Programs with a selection model, and their data."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from pyro import poutine

from cm2pyro.api import CM2
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.manifest import read_manifest
from cm2pyro.inference.program import Program
from tests.traces import traces

NAMES = ("a", "b", "c")
OBSERVED = [f"observed_{name}" for name in NAMES]
D, K = 2, 2


def frame(n: int, seed: int, missing: float, names: tuple[str, ...] = NAMES, dim: int = D, classes: int = 2) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {"sample_id": [f"s{i}" for i in range(n)], "subject_id": [f"p{i}" for i in range(n)]}
    columns |= {"split": ["train"] * n, "label": [str(i % classes) for i in range(n)]}
    for name in names:
        vectors = random.normal(size=(n, dim)) + 2 * random.integers(0, 2, size=(n, 1))
        columns[name] = ["" if random.random() < missing and i > 3 else str(vectors[i].tolist()) for i in range(n)]
    return pd.DataFrame(columns)


def config(names: tuple[str, ...] = NAMES, dim: int = D, **sections: Any) -> dict[str, Any]:
    return {
        "modalities": {name: {"kind": "embedding", "encoder": "identity"} for name in names},
        "latent": {"dim": dim},
        "prior": {"components": sections.pop("components", K), **sections.pop("prior", {})},
        "guide": {"local": "delta", **sections.pop("guide", {})},
        "fusion": {"kind": "mlp", "layers": 0},
        "missingness": {"model": "selection", **sections.pop("missingness", {})},
        "fit": {"beta": 0.5, "epochs": 2, "batch_size": 20, **sections.pop("fit", {})},
        **sections,
    }


def make(n: int = 40, missing: float = 0.4, names: tuple[str, ...] = NAMES, dim: int = D, **sections: Any) -> tuple[Program, Dataset]:
    """A program in double precision whose head and mechanism have slopes, and its data."""
    classes = 3 if sections.get("task", {}).get("type") == "multiclass" else 2
    torch.manual_seed(0)
    model = CM2.from_config(config(names, dim, **sections))
    dataset = model.preparation.fit(read_manifest(frame(n, 1, missing, names, dim, classes)), np.arange(n))
    program = Program(model.config, {name: kind.shapes() for name, kind in model.preparation.kinds.items()}, classes).double()
    inputs = {name: {"vector": views["vector"].double()} for name, views in dataset.inputs.items()}
    if program.model.missingness is not None:
        with torch.no_grad():
            for parameter in program.model.missingness.parameters():
                parameter.normal_()
    return program, Dataset(dataset.names, inputs, dataset.observed, dataset.labels, dataset.ids, dataset.subjects)


def whole(dataset: Dataset) -> torch.Tensor:
    return torch.arange(len(dataset))


def trace_of(program: Program, dataset: Dataset, completions: int) -> poutine.Trace:
    """The model's trace at the guide's draws, with log densities."""
    model, guide = traces(program, dataset.batch(whole(dataset)), completions)
    assert not set(OBSERVED) & set(guide.nodes)  # what is known has no guide
    return model


def latents(trace: poutine.Trace, names: tuple[str, ...] = NAMES) -> torch.Tensor:
    return torch.stack([trace.nodes[f"z_{name}"]["value"] for name in names], -2)


def patterns(dataset: Dataset) -> Dataset:
    """The same rows with every pattern of three modalities in turn, nothing and all included."""
    index = torch.arange(len(dataset))
    return dataset.with_observed(torch.stack([(index >> m) % 2 == 1 for m in range(3)], 1))
