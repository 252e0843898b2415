"""Drawn latents as a labelled array and as a netCDF file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cm2pyro.data.dataset import Dataset
from cm2pyro.files import atomic


def to_xarray(z: NDArray[np.float32], dataset: Dataset, members: int, attributes: Mapping[str, Any]) -> xr.Dataset:
    """Label drawn latents.

    Args:
        z: (E S, N, M, D), as from `impute`. dataset: its rows. members: E, of the ensemble. attributes: of the result.

    Returns:
        `z` (draw, sample_id, modality, latent) and `observed` (sample_id, modality). With several members the coordinate
        `member` says whose a draw is: each has a latent space of its own, and draws of different ones must not be averaged.
    """
    draws = len(z)
    coordinates: dict[str, Any] = {
        "draw": np.arange(draws),
        "sample_id": np.array(dataset.ids, dtype=object),
        "modality": np.array(dataset.names, dtype=object),
        "latent": np.arange(z.shape[-1]),
    }
    if members > 1:
        coordinates["member"] = ("draw", np.repeat(np.arange(members), draws // members))
    variables = {
        "z": (("draw", "sample_id", "modality", "latent"), z, {"long_name": "latent: drawn given the observed ones where missing"}),
        "observed": (("sample_id", "modality"), dataset.observed.numpy(), {"long_name": "whether the modality was there"}),
    }
    return xr.Dataset(variables, coordinates, dict(attributes))


def write_netcdf(latents: xr.Dataset, path: str | Path) -> None:
    """Write the file whole, compressed. Raises DataError: a path that cannot be written."""
    with atomic(path) as temporary:
        latents.to_netcdf(temporary, engine="h5netcdf", encoding={"z": {"zlib": True, "complevel": 1}})
