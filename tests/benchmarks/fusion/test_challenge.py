"""The challenge's scores of a comparison."""

import numpy as np
import pytest

from benchmarks.fusion.challenge import lines
from benchmarks.fusion.report import Results
from cm2pyro.errors import DataError


def made(seed: int, methods: list[str], shift: float = 0.0, mask: str = "as observed") -> Results:
    random = np.random.default_rng(seed)
    p = random.uniform(0.02, 0.6, 400)
    y = (random.random(400) < p).astype(int)
    predictions = {method: {s: {mask: np.clip(p + shift * s, 0, 1)} for s in (0, 1)} for method in methods}
    return Results(y, [str(i) for i in range(400)], (mask,), predictions, ())


def test_the_threshold_comes_from_the_other_rows() -> None:
    tested, tuned = made(0, ["ours", "boosting"]), made(1, ["ours"])
    head, _, row = lines(tested, tuned)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert head.startswith("| method | threshold")
    p, y = tuned.predictions["ours"][0]["as observed"], tuned.labels
    candidates = np.unique(p)
    best = max(min((y[p >= c].sum() / y.sum()), y[p >= c].mean()) for c in candidates)
    threshold = float(cells[1])
    called = p >= threshold
    assert min(y[called].sum() / y.sum(), y[called].mean()) == pytest.approx(best, abs=0.01)  # printed to three digits
    q, z = tested.predictions["ours"][0]["as observed"], tested.labels
    called = q >= threshold
    assert float(cells[2].split(" ± ")[0]) == pytest.approx(min(z[called].sum() / z.sum(), z[called].mean()), abs=0.01)
    assert cells[4] == cells[2].split(" ± ")[0]  # both seeds predict the same here


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(DataError, match="no method has complete fits in both"):
        lines(made(0, ["ours"]), made(1, ["concat"]))
    with pytest.raises(DataError, match="holds no predictions 'as observed'"):
        lines(made(0, ["ours"], mask="mcar:0.5"), made(1, ["ours"]))
