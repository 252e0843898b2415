"""Masks that hide modalities: never add one, follow their mechanism, and are seeded.

The oracle of a mechanism is a logistic regression of what was hidden; tolerances are four standard errors (five where many
numbers are compared), for fixed seeds.
"""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm2pyro.data.dataset import Dataset
from cm2pyro.data.missingness import Mechanism, hide, hide_for_fit, hiding_probability, mask_table
from cm2pyro.data.simulated_truth import MAR_SLOPE, MNAR_SLOPES
from cm2pyro.errors import ConfigError, DataError
from tests.data.logistic import logistic

NAMES = ("ehr", "image", "note")
EVERY = ["mcar:0.3", "mcar:0", "mcar:1", "mar:0.4", "mar:0.4@note", "mnar:0.3", "mnar:0.3@ehr,note", "only:image", "without:note"]


def patients(n: int, seed: int = 7, share: float = 0.8, labels: Tensor | None = None) -> Dataset:
    """One vector of length one per modality, so that its score is the vector itself in sd units; all correlate."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 3)) + random.normal(size=(n, 1))
    y = (random.random(n) < 1 / (1 + np.exp(-x.sum(1)))).astype(int)
    ids = tuple(f"s{i}" for i in range(n))
    observed = random.random((n, 3)) < share
    vectors = np.where(observed, x, 0.0)
    inputs: Any = {name: {"vector": torch.from_numpy(vectors[:, [m]]).float()} for m, name in enumerate(NAMES)}
    return Dataset(NAMES, inputs, torch.from_numpy(observed), torch.from_numpy(y) if labels is None else labels, ids, ids)


def contents(data: Dataset) -> NDArray[np.float64]:
    """(N, 3) what the modalities hold, in sd units over the rows that have them; NaN where missing."""
    x = torch.cat([data.inputs[name]["vector"][torch.arange(len(data))] for name in NAMES], 1).double().numpy()
    x = np.where(data.observed.numpy(), x, np.nan)
    return np.asarray((x - np.nanmean(x, 0)) / np.nanstd(x, 0))


def slopes_and_errors(X: NDArray[np.float64], y: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Those of a logistic regression, without its intercept."""
    estimate, error = logistic(X, y)
    return estimate[1:], error[1:]


# --- what every mechanism does -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", EVERY)
def test_a_subset_that_leaves_the_given_mask_alone(mechanism: str) -> None:
    data = patients(500)
    before = data.observed.clone()
    left = hide(data, mechanism, 0)
    assert left.dtype == bool
    assert not (left & ~before.numpy()).any()
    assert (data.observed == before).all()
    scope = Mechanism.parse(mechanism, NAMES).scope
    outside = [m for m, name in enumerate(NAMES) if name not in scope]
    assert (left[:, outside] == before.numpy()[:, outside]).all()


@pytest.mark.parametrize("mechanism", ["mcar:0.3", "mar:0.4", "mnar:0.3"])
def test_the_seed_decides(mechanism: str) -> None:
    data = patients(500)
    assert (hide(data, mechanism, 3) == hide(data, mechanism, 3)).all()
    assert (hide(data, mechanism, 3) != hide(data, mechanism, 4)).any()


@pytest.mark.parametrize("mechanism", ["mcar:{}", "mar:{}@note,image", "mnar:{}"])
def test_a_larger_probability_hides_more_and_keeps_hidden_what_was(mechanism: str) -> None:
    data = patients(2000)
    masks = [hide(data, mechanism.format(p), 5) for p in (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)]
    for less, more in itertools.pairwise(masks):
        assert not (more & ~less).any()
        assert (more != less).any()
    assert (masks[0] == data.observed.numpy()).all()
    scope = [m for m, name in enumerate(NAMES) if name in Mechanism.parse(mechanism.format(1), NAMES).scope]
    assert not masks[-1][:, scope].any()


@pytest.mark.parametrize("mechanism", ["mcar:0.3", "mar:0.3", "mar:0.7@ehr,note", "mnar:0.3", "mnar:0.6@image"])
def test_the_rate_is_the_one_asked_for_among_rows_that_have_the_modality(mechanism: str) -> None:
    data = patients(20_000)
    rule = Mechanism.parse(mechanism, NAMES)
    probability, left = hiding_probability(data, rule), hide(data, mechanism, 1)
    for name in rule.scope:
        m = NAMES.index(name)
        has = data.observed[:, m].numpy()
        assert probability[has, m].mean() == pytest.approx(rule.probability, abs=1e-8)
        tolerance = 5 * np.sqrt(rule.probability * (1 - rule.probability) / has.sum())  # no less than with equal probabilities
        assert 1 - left[has, m].mean() == pytest.approx(rule.probability, abs=tolerance)


# --- what each depends on ------------------------------------------------------------------------------------------


def test_mcar_hides_independently_of_everything() -> None:
    n = 20_000
    data = patients(n, share=1.1)
    hidden = ~hide(data, "mcar:0.3", 1)
    assert np.abs(np.corrcoef(hidden.T)[np.triu_indices(3, 1)]).max() < 5 / np.sqrt(n)
    for m in range(3):
        slopes, error = slopes_and_errors(np.column_stack([contents(data), data.labels.numpy()]), hidden[:, m])
        assert (np.abs(slopes) < 5 * error).all()


def test_a_scope_leaves_the_other_cells_of_mcar_as_they_are_without_it() -> None:
    data = patients(500)
    whole, part = hide(data, "mcar:0.5", 2), hide(data, "mcar:0.5@note, ehr", 2)
    assert (whole[:, [0, 2]] == part[:, [0, 2]]).all()


@pytest.mark.parametrize(("mechanism", "stays"), [("mar:0.4", [0]), ("mar:0.4@note", [0, 1]), ("mar:0.6@ehr,note", [1])])
def test_mar_depends_on_what_stays_and_given_that_on_nothing_that_goes(mechanism: str, stays: list[int]) -> None:
    data = patients(20_000)
    known = np.nan_to_num(contents(data)[:, stays]).sum(1)
    known = (known - known.mean()) / known.std()
    left = hide(data, mechanism, 1)
    for m in set(range(3)) - set(stays):
        has = data.observed[:, m].numpy()
        X = np.column_stack([known, contents(data)[:, m], data.labels.numpy()])[has]
        slopes, error = slopes_and_errors(X, ~left[has, m])
        assert slopes[0] == pytest.approx(MAR_SLOPE, abs=4 * error[0])
        assert (np.abs(slopes[1:]) < 4 * error[1:]).all()
        # Without the score, what is hidden does go with what it held: the test above can fail.
        slopes, error = slopes_and_errors(X[:, 1:], ~left[has, m])
        assert slopes[0] > 10 * error[0]


def test_mar_is_a_function_of_what_stays() -> None:
    """Other values of what may be hidden, and other labels, give the same mask."""
    data = patients(300)
    inputs: Any = dict(data.inputs) | {"note": {"vector": torch.randn(300, 1)}, "image": {"vector": torch.randn(300, 1)}}
    other = Dataset(NAMES, inputs, data.observed, 1 - data.labels, data.ids, data.subjects)
    assert (hide(data, "mar:0.5", 0) == hide(other, "mar:0.5", 0)).all()
    assert (hide(data, "mnar:0.5", 0) != hide(other, "mnar:0.5", 0)).any()


def test_mnar_depends_on_the_modality_itself_and_on_the_outcome() -> None:
    data = patients(20_000)
    left = hide(data, "mnar:0.4", 1)
    for m in range(3):
        has = data.observed[:, m].numpy()
        others = np.nan_to_num(contents(data)[:, [k for k in range(3) if k != m]])
        X = np.column_stack([contents(data)[:, m], data.labels.numpy(), others])[has]
        slopes, error = slopes_and_errors(X, ~left[has, m])
        assert slopes[:2] == pytest.approx(MNAR_SLOPES, abs=4 * error[:2].max())
        assert (np.abs(slopes[2:]) < 4 * error[2:]).all()


def log_odds(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log(p / (1 - p)))


@pytest.mark.parametrize(
    ("labels", "outcome"),
    [
        ([0, 1, 2, -1, 0, 1], [0, 1, 1, 0.6, 0, 1]),
        ([[0, 0], [0, 1], [1, -1], [-1, -1], [-1, 0], [1, 1]], [0, 1, 1, 0.6, 0, 1]),
        ([0.5, -1.5, float("nan"), 2.0, 0.0, -0.5], [0.5, -1.5, 0.1, 2.0, 0.0, -0.5]),
    ],
    ids=["classes", "labels", "numbers"],
)
def test_the_outcome_of_every_task_and_its_mean_without_a_label(labels: list, outcome: list[float]) -> None:
    data = patients(6, share=1.1, labels=torch.tensor(labels))
    got = log_odds(hiding_probability(data, Mechanism.parse("mnar:0.4", NAMES)))
    expected = contents(data) * MNAR_SLOPES[0] + np.array(outcome)[:, None] * MNAR_SLOPES[1]
    np.testing.assert_allclose(got - got[0], expected - expected[0], atol=1e-5)  # float32 inputs


def test_mnar_without_labels_is_refused_and_mar_is_not() -> None:
    data = patients(20, labels=torch.full((20,), -1))
    with pytest.raises(DataError, match="no row has a label"):
        hide(data, "mnar:0.5", 0)
    assert (hide(data, "mar:0.5", 0) != data.observed.numpy()).any()


def test_naming_mechanisms() -> None:
    data = patients(50)
    given, only, without = data.observed.numpy(), hide(data, "only:image", 0), hide(data, "without:image", 0)
    assert (only[:, 1] == given[:, 1]).all()
    assert not only[:, [0, 2]].any()
    assert (without[:, [0, 2]] == given[:, [0, 2]]).all()
    assert not without[:, 1].any()


def test_content_that_does_not_differ_leaves_the_probability_alone() -> None:
    data = patients(200)
    inputs: Any = {name: {"vector": torch.ones(200, 2)} for name in NAMES}
    same = Dataset(NAMES, inputs, data.observed, data.labels, data.ids, data.subjects)
    assert hiding_probability(same, Mechanism.parse("mar:0.3", NAMES))[:, 1:] == pytest.approx(np.full((200, 2), 0.3))
    got = hiding_probability(same, Mechanism.parse("mnar:0.3@ehr", NAMES))[:, 0]
    assert len(np.unique(got.round(9))) == 2  # the outcome alone


def test_a_modality_that_nobody_has_stays_so() -> None:
    data = patients(60).take(range(60))
    data = data.with_observed(data.observed & torch.tensor([True, False, True]))
    for mechanism in ("mar:0.5", "mar:0.5@ehr", "mnar:0.5"):
        assert not hide(data, mechanism, 0)[:, 1].any()
    assert hide(data.take([]), "mar:0.5", 0).shape == (0, 3)


# --- for a fit -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["mar:0.5@note", "mnar:0.5"])
def test_what_a_mechanism_depends_on_is_learned_from_the_training_rows(mechanism: str) -> None:
    """Whatever comes after them changes nothing for the training rows, and follows their intercepts."""
    data, train = patients(3000), 2000
    rule = Mechanism.parse(mechanism, NAMES)
    whole = hiding_probability(data, rule, range(train))
    np.testing.assert_allclose(whole[:train], hiding_probability(data.take(range(train)), rule), atol=1e-9)
    moved: Any = {}
    for name in NAMES:
        x = data.inputs[name]["vector"][torch.arange(3000)].clone()
        x[train:] += 1
        moved[name] = {"vector": x}
    later = hiding_probability(Dataset(NAMES, moved, data.observed, data.labels, data.ids, data.subjects), rule, range(train))
    np.testing.assert_allclose(later[:train], whole[:train], atol=1e-9)
    m = NAMES.index(rule.scope[-1])
    has = data.observed[:, m].numpy()
    assert whole[:train][has[:train], m].mean() == pytest.approx(0.5, abs=1e-8)
    moves = has & (data.observed[:, :2].any(1).numpy() | (rule.kind == "mnar"))  # a row without what mar depends on stays
    moves[:train] = False
    assert (later[moves, m] > whole[moves, m]).all()


def test_the_line_and_the_table_of_a_fit() -> None:
    data = patients(400)
    hidden, line = hide_for_fit(data, "mcar:0.5@image", 3, 300)
    share = float(hidden.observed[:, 1].sum() / data.observed[:, 1].sum())
    assert line == f"mask mcar:0.5@image, seed 3; left of what the rows of train and val have: ehr 100%, image {share:.0%}, note 100%"
    table = mask_table(hidden, hidden.observed.numpy())
    assert list(table.columns) == ["sample_id", *NAMES]
    assert table["sample_id"].tolist() == list(data.ids)
    assert (table[list(NAMES)].to_numpy() == hidden.observed.numpy()).all()
    assert mask_table(data, data.observed.numpy(), "natural")["mechanism"].unique().tolist() == ["natural"]


def test_a_mask_that_leaves_no_training_row_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"missingness.mask only:ehr: hides 'image' in every training row.*lower the probability"):
        hide_for_fit(patients(40), "only:ehr", 0, 30)


# --- the grammar ---------------------------------------------------------------------------------------------------


def test_the_parts_of_a_mechanism() -> None:
    assert Mechanism.parse("mar:0.5", NAMES) == Mechanism("mar:0.5", "mar", 0.5, ("image", "note"))
    assert Mechanism.parse("mcar:0.5", NAMES).scope == NAMES
    assert Mechanism.parse("mnar:1e-1@note,ehr", NAMES) == Mechanism("mnar:1e-1@note,ehr", "mnar", 0.1, ("ehr", "note"))
    assert Mechanism.parse("only:image", NAMES).scope == ("ehr", "note")
    assert Mechanism.parse("without:image", NAMES).scope == ("image",)


@pytest.mark.parametrize(
    ("mechanism", "says"),
    [
        ("mcar", "'' is not a probability; write for example mcar:0.5"),
        ("mcar:half", "'half' is not a probability"),
        ("mar:1.1", "'1.1' is not a probability; write for example mar:0.5"),
        ("mcar:-0.1", "'-0.1'"),
        ("mnar:nan", "'nan'"),
        ("mcar:@ehr", "'' is not a probability"),
        ("only:imgae", "no modality 'imgae'; did you mean 'image'? known: ehr, image, note"),
        ("without:", "no modality ''; known: ehr, image, note"),
        ("mcar:0.5@imgae", "no modality 'imgae'; did you mean 'image'? known: ehr, image, note"),
        ("mcar:0.5@", "no modality ''; known: ehr, image, note"),
        ("mnar:0.5@ehr,,note", "no modality ''; known: ehr, image, note"),
        ("mar:0.5@ehr,image,note", "the scope names all; leave one out"),
        ("only:ehr@note", "'@' gives a scope to mcar, mar and mnar alone; write only:ehr"),
        ("mnra:0.5", "unknown mechanism 'mnra'; did you mean 'mnar'? known: mar, mcar, mnar, only, without; write for example"),
        ("", "unknown mechanism ''"),
    ],
)
def test_refused_in_one_line(mechanism: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        hide(patients(3), mechanism, 0)
    assert str(caught.value).startswith(f"--missing {mechanism}: ")
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_mar_needs_a_second_modality() -> None:
    with pytest.raises(ConfigError, match="'ehr' is the only one"):
        Mechanism.parse("mar:0.5", ("ehr",))
