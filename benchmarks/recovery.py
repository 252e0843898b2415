"""Recovery of a known Kendall's tau on given latents, for every family by each of the three ways of docs/estimation.md.

    python benchmarks/recovery.py [--families a,b] [--taus 0.2,0.5,0.7] [--updates joint,ifm,profile] [--epochs 30]

4,000 simulated latents (3,800 train), D = 2, K = 3, adjacent centres 4 sd apart, orders not aligned; three modalities, two for rotations,
whose tau is negative. Prints the largest error over pairs and dimensions, and per family and way the largest of all.
"""

import argparse
import itertools
import json
from collections import defaultdict

import numpy as np
import pandas as pd
import torch

from cm2pyro import CM2
from cm2pyro.data.simulation import SimulationSettings, population
from cm2pyro.distributions import FAMILIES, CopulaMixture, make_copula

N = 4000


def latents(family: str, tau: float, M: int, seed: int) -> np.ndarray:
    """(N, M, 2) draws; of two modalities the first two margins of the three."""
    truth = population(SimulationSettings(family=family if M == 3 else "gaussian", tau=tau if M == 3 else 0.5, missing=0))
    if M == 3:
        return truth.draw_latents(N, seed)
    p = truth.prior
    copula = make_copula(family, 2, tau=torch.tensor(tau, dtype=torch.float64))
    torch.manual_seed(seed)
    return CopulaMixture(p.log_weights, p.assignment[:, :2], p.locs[:2], p.scales[:2], copula).rsample((N,)).numpy()


def estimate(z: np.ndarray, family: str, update: str, epochs: int) -> torch.Tensor:
    """Kendall's tau of every pair and dimension after a fit."""
    names = ("a", "b", "c")[: z.shape[1]]
    columns = {"sample_id": [f"s{i}" for i in range(N)], "subject_id": [f"p{i}" for i in range(N)]}
    columns["split"] = ["val" if i % 20 == 0 else "train" for i in range(N)]
    columns["label"] = [str(int(x)) for x in np.random.default_rng(0).random(N) < 0.4]
    frame = pd.DataFrame(columns | {name: [json.dumps(row) for row in z[:, m].tolist()] for m, name in enumerate(names)})
    config = {
        "modalities": {name: {"kind": "embedding", "encoder": "identity"} for name in names},
        "latent": {"dim": 2},
        "prior": {"components": 3, "scale_floor": 0.02, "copula": {"family": family, "update": update}},
        "guide": {"local": "delta"},
        "fusion": {"kind": "mlp", "hidden": 16},
        "fit": {"epochs": epochs, "batch_size": 256, "lr": 1e-2, "global_lr": 1e-2, "schedule": "cosine", "ema": 0.98, "beta": 1.0}
        | {"patience": epochs, "restarts": 5},
    }
    tau = CM2.from_config(config).fit(frame).mixture().copula.tau()
    pairs = list(itertools.combinations(range(len(names)), 2))
    return torch.stack([tau[..., a, b] for a, b in pairs], -1) if tau.dim() >= 2 else tau


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(name for name in FAMILIES.names() if name != "independence"))
    parser.add_argument("--taus", default="0.2,0.5,0.7")
    parser.add_argument("--updates", default="joint,ifm,profile")
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    worst: dict[tuple[str, str], float] = defaultdict(float)
    updates = arguments.updates.split(",")
    for family in arguments.families.split(","):
        rotated = family.endswith(("_90", "_270"))
        for tau in (float(t) * (-1 if rotated else 1) for t in arguments.taus.split(",")):
            z = latents(family, tau, 2 if rotated else 3, seed=0)
            for update in updates:
                found = estimate(z, family, update, arguments.epochs)
                error = float((found - tau).abs().max())
                worst[family, update] = max(worst[family, update], error)
                print(f"{family:18}{tau:6.2f}  {update:8}{error:7.3f}", flush=True)
    print(f"\n{'largest error':18}" + "".join(f"{update:>9}" for update in updates))
    for family in arguments.families.split(","):
        print(f"{family:18}" + "".join(f"{worst[family, update]:9.3f}" for update in updates))


if __name__ == "__main__":
    main()
