"""Uncertainty over subjects by the bootstrap, and rows grouped by what was observed: what metrics of all tasks share."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cm2pyro.errors import DataError

Array = NDArray[Any]
Metric = dict[str, float | None]  # "value", "low", "high"; None where undefined

INTERVAL = (0.025, 0.975)
_BLOCK = 2**20  # weights held at once, resamples x rows: 8 MiB, which stays near the cache


def measured(under: Callable[[Array], Array], n: int, subjects: int, bootstrap: int, seed: int) -> list[Metric]:
    """Values of metrics, with 95% percentile intervals over resamples of subjects.

    A resample draws as many subjects as there are, with replacement, each with all its rows. Resamples in which a metric is
    undefined are ignored for it, and where more than half of them are, no interval is given. Nor is there one for a
    single subject.

    Args:
        under: (B, subjects) float, how often each subject counts -> (B, metrics), NaN where undefined. n: rows, for memory.

    Returns:
        a dict per metric.
    """
    value = under(np.ones((1, subjects)))[0]
    low = high = np.full(len(value), np.nan)
    if bootstrap and subjects > 1:
        rng = np.random.default_rng(seed)
        size = max(1, _BLOCK // n)
        blocks = [min(size, bootstrap - start) for start in range(0, bootstrap, size)]
        low, high = _percentiles(np.concatenate([under(_draw(rng, block, subjects)) for block in blocks]))
        low, high = (np.where(np.isnan(value), np.nan, bound) for bound in (low, high))
    return [{"value": _or_none(value[i]), "low": _or_none(low[i]), "high": _or_none(high[i])} for i in range(len(value))]


def reflected(metric: Metric) -> Metric:
    """The basic interval in place of the percentile interval, for an error that is never negative: 2 value − high to 2 value − low, from 0.

    A mean of absolute or squared deviations grows with noise. A resample adds its own to that of the rows, so percentiles lie high, often
    above the value; reflecting them takes that bias off twice, once for the resamples and once for the value.
    """
    value, low, high = metric["value"], metric["low"], metric["high"]
    if value is None or low is None or high is None:
        return metric
    return {"value": value, "low": max(0.0, 2 * value - high), "high": max(0.0, 2 * value - low)}


def check_bootstrap(bootstrap: int) -> None:
    """Raises DataError for a negative number of resamples."""
    if bootstrap < 0:
        raise DataError(f"bootstrap: is {bootstrap}; 0 or a positive number of resamples is expected")


def patterns(keys: Array) -> tuple[list[str], Array]:
    """The different keys (n,), the most frequent first; and (n,) int, the place of every row's own among them."""
    found, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [str(found[i]) for i in order], np.argsort(order)[group.reshape(-1)]


def by_pattern(measure: Callable[[Array], dict[str, Any]], keys: Array) -> dict[str, dict[str, Any]]:
    """`measure` of the rows (k,) of each pattern, the most frequent first; `keys` (n,) as from `pattern_keys`."""
    found, place = patterns(keys)
    return {key: measure(np.flatnonzero(place == i)) for i, key in enumerate(found)}


def pattern_keys(observed: ArrayLike, names: Sequence[str], n: int) -> Array:
    """(n,) str: each row's observed modalities joined by ";", "none" where there are none.

    Args:
        observed: (n, M) bool.
        names: M modality names, without ";" and none of them "none".
        n: number of rows expected.

    Raises:
        DataError: a shape that does not fit, or a name that would make two patterns look the same.
    """
    seen = np.asarray(observed)
    if seen.shape != (n, len(names)) or seen.dtype != bool:
        raise DataError(f"observed: is {seen.dtype} of shape {seen.shape}; bool of shape {(n, len(names))} (rows, modalities) is expected")
    for name in names:
        if name == "none" or ";" in name or list(names).count(name) > 1:
            raise DataError(f"names: {name!r} cannot name a modality in a pattern; use distinct names, without ';' and other than 'none'")
    kinds, index = np.unique(seen, axis=0, return_inverse=True)
    keys = np.array([";".join(name for name, there in zip(names, kind, strict=True) if there) or "none" for kind in kinds])
    return keys[index.reshape(-1)]


def subject_codes(subjects: ArrayLike, n: int) -> Array:
    """(n,) int: subjects numbered by name, so that the order of rows changes no interval. Raises DataError: an empty id."""
    ids = np.asarray(subjects, dtype=object)
    if ids.shape != (n,):
        raise DataError(f"subjects: shape is {ids.shape}; ({n},), one id a row, is expected")
    # A NaN is the only value that differs from itself.
    bad = next((row for row, name in enumerate(ids) if name is None or name != name or name == ""), None)
    if bad is not None:
        raise DataError(f"subjects: row {bad} has no id; fill subject_id, for instance with the sample_id")
    return numbered(ids.astype(str))


def numbered(codes: Array) -> Array:
    """(n,) any values -> (n,) int from 0 without gaps, in their order."""
    return np.unique(codes, return_inverse=True)[1].reshape(-1)


def _draw(rng: np.random.Generator, resamples: int, subjects: int) -> Array:
    """(resamples, subjects) float: how often each subject is drawn, with replacement."""
    drawn = rng.integers(subjects, size=(resamples, subjects)) + subjects * np.arange(resamples)[:, None]
    return np.bincount(drawn.reshape(-1), minlength=resamples * subjects).reshape(resamples, subjects).astype(float)


def _percentiles(draws: Array) -> tuple[Array, Array]:
    """(low, high), each (metrics,), of `draws` (B, metrics) without their NaN; NaN where more than half are."""
    bounds = np.full((2, draws.shape[1]), np.nan)
    for i, column in enumerate(draws.T):
        usable = column[~np.isnan(column)]
        if 2 * len(usable) >= len(column):
            bounds[:, i] = np.quantile(usable, INTERVAL)
    return bounds[0], bounds[1]


def _or_none(number: float) -> float | None:
    return None if np.isnan(number) else float(number)
