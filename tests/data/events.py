"""Measurements by hand, for the tests of time series."""

import numpy as np

from cm2pyro.data.series import Events


def events_of(rows: list[tuple[int, str, float, float]], n: int) -> Events:
    names = tuple(sorted({name for _, name, _, _ in rows}))
    samples, variables = np.array([r[0] for r in rows], np.int64), np.array([names.index(r[1]) for r in rows], np.int64)
    hours, values = np.array([r[2] for r in rows], np.float64), np.array([r[3] for r in rows], np.float64)
    order = np.lexsort((hours, variables, samples))
    return Events(samples[order], variables[order], hours[order], values[order], names, n)
