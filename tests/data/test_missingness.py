"""Masks that hide modalities: never add one, follow their mechanism, and are seeded."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cm2pyro.data.missingness import hide
from cm2pyro.errors import ConfigError

NAMES = ("ehr", "image", "note")


def mask(n: int) -> NDArray[np.bool_]:
    return np.asarray(np.random.default_rng(7).random((n, 3)) < 0.8)


@pytest.mark.parametrize("mechanism", ["mcar:0.3", "mcar:0", "mcar:1", "only:image", "without:note"])
def test_a_subset_that_leaves_the_given_mask_alone(mechanism: str) -> None:
    given = mask(500)
    before = given.copy()
    hidden = hide(given, NAMES, mechanism, 0)
    assert hidden.dtype == bool
    assert not (hidden & ~given).any()
    assert (given == before).all()
    assert (hide(given, NAMES, mechanism, 0) == hidden).all()


def test_mcar_hides_its_share_of_every_modality_independently() -> None:
    n, share = 20_000, 0.3
    hidden = ~hide(np.ones((n, 3), dtype=bool), NAMES, f"mcar:{share}", 1)
    tolerance = 5 * np.sqrt(share * (1 - share) / n)  # five standard errors
    np.testing.assert_allclose(hidden.mean(0), share, atol=tolerance)
    off_diagonal = np.asarray(np.corrcoef(hidden.T))[np.triu_indices(3, 1)]
    np.testing.assert_allclose(off_diagonal, 0, atol=5 / np.sqrt(n))
    other = ~hide(np.ones((n, 3), dtype=bool), NAMES, f"mcar:{share}", 2)
    assert (hidden != other).any()


def test_the_ends_of_mcar_and_the_named_modalities() -> None:
    given = mask(50)
    assert (hide(given, NAMES, "mcar:0", 0) == given).all()
    assert not hide(given, NAMES, "mcar:1", 0).any()
    only, without = hide(given, NAMES, "only:image", 0), hide(given, NAMES, "without:image", 0)
    assert (only[:, 1] == given[:, 1]).all()
    assert not only[:, [0, 2]].any()
    assert (without[:, [0, 2]] == given[:, [0, 2]]).all()
    assert not without[:, 1].any()


@pytest.mark.parametrize(
    ("mechanism", "says"),
    [
        ("mcar", "'' is not a probability; write for example mcar:0.5"),
        ("mcar:half", "'half' is not a probability"),
        ("mcar:1.1", "'1.1' is not a probability"),
        ("mcar:-0.1", "'-0.1'"),
        ("mcar:nan", "'nan'"),
        ("only:imgae", "no modality 'imgae'; did you mean 'image'? known: ehr, image, note"),
        ("without:", "no modality ''; known: ehr, image, note"),
        ("mar:0.5", "unknown mechanism 'mar'; known: mcar:P, only:NAME, without:NAME"),
        ("", "unknown mechanism ''"),
    ],
)
def test_refused_in_one_line(mechanism: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        hide(mask(3), NAMES, mechanism, 0)
    assert str(caught.value).startswith(f"--missing {mechanism}: ")
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
