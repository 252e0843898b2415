"""How usual a patient's latents look, against validation rows with the same modalities."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm2pyro.data.dataset import Dataset
from cm2pyro.errors import CheckpointError
from cm2pyro.inference import checkpoint
from cm2pyro.inference.monitor import latents
from cm2pyro.inference.program import Program

_FILE = "reference.safetensors"


@dataclass(frozen=True)
class Reference:
    """Latents of the validation rows: z (N, M, D), observed (N, M) bool."""

    z: Tensor
    observed: Tensor

    @classmethod
    def of(cls, program: Program, dataset: Dataset) -> Self:
        return cls(latents(program, dataset).cpu(), dataset.observed)

    def write(self, run: Path) -> None:
        checkpoint.write(run / _FILE, {"z": self.z, "observed": self.observed.to(torch.uint8)}, {})

    @classmethod
    def read(cls, run: Path, modalities: int, dim: int) -> Self | None:
        """None where the fit was cut before its end. Raises CheckpointError: not latents of this model."""
        if not (run / _FILE).exists():
            return None
        tensors, _ = checkpoint.read(run / _FILE)
        if set(tensors) != {"z", "observed"}:
            raise CheckpointError(f"{run / _FILE}: expected z and observed, found {sorted(tensors)}; fit again")
        z, observed = tensors["z"], tensors["observed"]
        if z.dim() != 3 or z.shape[1:] != (modalities, dim) or observed.shape != z.shape[:2] or not z.is_floating_point():
            raise CheckpointError(
                f"{run / _FILE}: z has shape {tuple(z.shape)} and observed {tuple(observed.shape)}, "
                f"expected (rows, {modalities}, {dim}) and (rows, {modalities}); fit again"
            )
        checkpoint.check_finite(tensors, run / _FILE)
        return cls(z, observed.bool())

    def percentiles(self, program: Program, dataset: Dataset) -> NDArray[np.float64]:
        """Percentile (0–100) of log p(z_observed) of every row, NaN where nothing is observed.

        The reference rows are those with the same missingness pattern; if there are none, those that have at least
        these modalities, with the others marginalised.
        """
        mixture = program.mixture()
        device = mixture.locs.device
        z, seen = latents(program, dataset), dataset.observed
        result = np.full(len(dataset), np.nan)
        for pattern in torch.unique(seen, dim=0) if len(dataset) else []:
            rows = (seen == pattern).all(1).nonzero()[:, 0]
            same = (self.observed == pattern).all(1)
            like = same if bool(same.any()) else (self.observed | ~pattern).all(1)
            if not bool(pattern.any()) or not bool(like.any()):
                continue
            with torch.no_grad():
                mask = pattern.to(device)
                usual = mixture.log_prob(self.z[like].to(device), mask.expand(int(like.sum()), -1)).sort().values
                own = mixture.log_prob(z[rows], mask.expand(len(rows), -1))
            below, upto = torch.searchsorted(usual, own), torch.searchsorted(usual, own, right=True)
            result[rows.numpy()] = 50.0 * (below + upto).cpu().numpy() / len(usual)
        return result
