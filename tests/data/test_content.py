"""One number for what a modality holds: for every kind of view it follows what varies most, whatever is missing."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from cm2pyro.data.columns import Column, Sparse
from cm2pyro.data.content import content_score

N = 400
random = np.random.default_rng(0)
FACTOR = random.normal(size=N)
THERE = random.random(N) < 0.7
ALL = np.ones(N, dtype=bool)


def sparse(values: torch.Tensor, fill: int = 0) -> Sparse:
    """The rows that are there, as pictures and notes are kept."""
    place = np.where(THERE, np.cumsum(THERE) - 1, -1)
    return Sparse(values[torch.from_numpy(THERE)], torch.from_numpy(place), fill)


def pictures(channels: int) -> Sparse:
    """Brightness is the factor, under noise."""
    levels = 128 + 20 * FACTOR[:, None, None, None] + 30 * random.normal(size=(N, channels, 36, 36))
    return sparse(torch.from_numpy(np.clip(levels, 0, 255).astype(np.uint8)))


def notes() -> Sparse:
    """The factor decides how often token 3 stands in two notes of 40; the rest is noise from 299 others, with some padding."""
    tokens = random.integers(4, 303, (N, 2, 40))
    often = random.random((N, 2, 40)) < (0.5 / (1 + np.exp(-2 * FACTOR)))[:, None, None]
    tokens = np.where(often, 3, tokens)
    tokens[:, 1, 30:] = -1
    return sparse(torch.from_numpy(tokens.astype(np.int32)), fill=-1)


def series() -> torch.Tensor:
    """Seven bins of five channels, of which two follow the factor."""
    x = random.normal(size=(N, 7, 5))
    x[:, :, 1:3] += FACTOR[:, None, None]
    return torch.from_numpy(x).float() * torch.from_numpy(THERE)[:, None, None]


def vectors() -> torch.Tensor:
    x = random.normal(size=(N, 6))
    x[:, :4] += 2 * FACTOR[:, None]
    return torch.from_numpy(x).float() * torch.from_numpy(THERE)[:, None]


VIEWS: dict[str, dict[str, Column]] = {
    "grey": {"pixels": pictures(1)},
    "colour": {"pixels": pictures(3)},
    "tokens": {"tokens": notes()},
    "binned": {"binned": series(), "measured": torch.ones(N, 7)},
    "vector": {"vector": vectors()},
}


@pytest.mark.parametrize("kind", VIEWS)
def test_every_kind_has_a_score_that_follows_what_varies_most(kind: str) -> None:
    score = content_score(VIEWS[kind], THERE, ALL)
    assert score.shape == (N,)
    assert (score[~THERE] == 0).all()
    assert score[THERE].mean() == pytest.approx(0, abs=1e-9)
    assert score[THERE].std() == pytest.approx(1)
    # A frequent token displaces the others, whose loadings outnumber its own: the sign turns.
    assert np.corrcoef(score[THERE], FACTOR[THERE])[0, 1] * (-1 if kind == "tokens" else 1) > 0.8
    assert (content_score(VIEWS[kind], THERE, ALL) == score).all()


def test_it_is_the_first_principal_component_of_the_rows_that_have_it() -> None:
    x = vectors().numpy().astype(np.float64)
    expected = PCA(1, svd_solver="full").fit(x[THERE])
    score = expected.transform(x)[:, 0] * np.sign(expected.components_[0].sum())
    score /= score[THERE].std()
    got = content_score({"vector": torch.from_numpy(x)}, THERE, ALL)
    np.testing.assert_allclose(got[THERE], score[THERE], atol=1e-8)


def test_the_sign_follows_the_sum_of_the_loadings() -> None:
    x = vectors()
    up, down = content_score({"vector": x}, THERE, ALL), content_score({"vector": -x}, THERE, ALL)
    np.testing.assert_allclose(up, -down, atol=1e-6)
    assert np.corrcoef(up[THERE], x.sum(1).numpy()[THERE])[0, 1] > 0.8


@pytest.mark.parametrize("kind", VIEWS)
def test_what_is_learned_comes_from_the_reference_rows(kind: str) -> None:
    """Rows outside them change nothing inside, whatever they hold."""
    first = np.arange(N) < 250
    views: dict[str, Column] = {}
    for name, view in VIEWS[kind].items():
        values = view.values if isinstance(view, Sparse) else view
        changed = values.clone()
        changed[int(THERE[:250].sum()) if isinstance(view, Sparse) else 250 :] = values.flatten()[0]
        views[name] = Sparse(changed, view.place, view.fill) if isinstance(view, Sparse) else changed
    a, b = content_score(VIEWS[kind], THERE, first), content_score(views, THERE, first)
    np.testing.assert_allclose(a[first], b[first], atol=1e-8)
    assert (a[~first] != b[~first]).any()
    assert a[first & THERE].mean() == pytest.approx(0, abs=1e-9)
    assert a[first & THERE].std() == pytest.approx(1)
    assert np.abs(content_score(VIEWS[kind], THERE, ALL) - a).max() > 1e-6


@pytest.mark.parametrize(
    ("views", "there"),
    [
        ({"vector": torch.full((4, 3), 0.1)}, [True] * 4),
        ({"vector": torch.randn(4, 3)}, [False] * 4),
        ({"vector": torch.randn(4, 1)}, [False, True, False, False]),
        ({"pixels": Sparse(torch.zeros(0, 1, 16, 16), torch.full((4,), -1))}, [False] * 4),
        ({"tokens": Sparse(torch.full((4, 1, 3), -1), torch.arange(4), -1)}, [True] * 4),
    ],
    ids=["constant", "nobody", "one", "no_picture", "no_token"],
)
def test_where_rows_do_not_differ_the_score_is_nought(views: Any, there: list[bool]) -> None:
    assert (content_score(views, np.array(there), np.ones(4, dtype=bool)) == 0).all()


def test_one_column_is_its_own_score() -> None:
    x = torch.tensor([[1.0], [2.0], [6.0], [0.0]])
    got = content_score({"vector": x}, np.array([True, True, True, False]), np.ones(4, dtype=bool))
    np.testing.assert_allclose(got, [-2 / np.sqrt(14 / 3), -1 / np.sqrt(14 / 3), 3 / np.sqrt(14 / 3), 0])
