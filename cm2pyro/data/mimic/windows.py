"""What may be known of a stay: from the admission to the unit until some hours later, never beyond the stay."""

import numpy as np
import pandas as pd

__all__ = ["inside", "windows"]


def windows(stays: pd.DataFrame, hours: float) -> pd.DataFrame:
    """The window of every stay.

    Args:
        stays: `sample_id`, `subject_id`, `hadm_id` (text, '' where unknown), `intime` and `outtime` (datetime64; NaT: no end known).
        hours: length of the window from `intime`; it ends earlier where the stay does.

    Returns:
        `sample_id`, `subject_id`, `hadm_id` as text, `start` and `end` (datetime64[ns]); both belong to the window.
    """
    frame = pd.DataFrame({name: stays[name].fillna("").astype(str).to_numpy(object) for name in ("sample_id", "subject_id", "hadm_id")})
    start = pd.to_datetime(stays["intime"]).to_numpy("datetime64[ns]")
    latest = start + np.timedelta64(round(hours * 3_600_000), "ms")
    out = pd.to_datetime(stays["outtime"]).to_numpy("datetime64[ns]")
    return frame.assign(start=start, end=np.where(np.isnat(out), latest, np.minimum(latest, out)))


def inside(pairs: pd.DataFrame) -> pd.DataFrame:
    """The rows whose `time` lies between `start` and `end`, with `hours` since `start`."""
    kept = pairs[pairs["time"].ge(pairs["start"]) & pairs["time"].le(pairs["end"])]
    return kept.assign(hours=(kept["time"] - kept["start"]).dt.total_seconds() / 3600)
