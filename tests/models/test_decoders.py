"""Feature decoders: their densities, what they score, whom they teach, and that they are kept with a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cm2pyro import sites
from cm2pyro.api import CM2
from cm2pyro.config import Config
from cm2pyro.data.dataset import Batch, Dataset
from cm2pyro.errors import ConfigError
from cm2pyro.inference.program import Program
from cm2pyro.models.decoders import NormalDecoder, ScaledDecoder
from tests.traces import conditioned, traces

D = 2
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "ehr": {"binned": (3, 4), "measured": (3,)},
    "xray": {"pixels": (1, 36, 36)},
    "note": {"tokens": (1, 5)},
    "lab": {"vector": (3,)},
}
NAMES = tuple(SHAPES)
OBSERVED = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1], [0, 1, 1, 1]], dtype=torch.bool)
N = len(OBSERVED)


def config(**changes: Any) -> Config:
    raw: dict[str, Any] = {
        "modalities": {
            "ehr": {"kind": "timeseries", "encoder": "lstm", "hours": 6, "hidden": 4, "dropout": 0.0},
            "xray": {"kind": "image", "encoder": "cnn", "size": 32, "width": 1, "dropout": 0.0},
            "note": {"kind": "text", "encoder": "bag", "vocabulary": 300, "hidden": 4, "max_tokens": 5, "dropout": 0.0},
            "lab": {"kind": "embedding", "encoder": "mlp", "hidden": 4, "dropout": 0.0},
        },
        "latent": {"dim": D},
        "fusion": {"kind": "mlp", "hidden": 4},
        "fit": {"beta": 0.5},
        "decoders": {"kind": "normal"},
    }
    return Config.from_dict(raw | changes)


def inputs() -> dict[str, dict[str, torch.Tensor]]:
    random = torch.Generator().manual_seed(0)
    lab = torch.randn(N, 3, generator=random)
    lab[:, 2] = 4.0  # does not vary
    return {
        "ehr": {"binned": torch.randn(N, 3, 4, generator=random), "measured": torch.ones(N, 3)},
        "xray": {"pixels": torch.randint(0, 256, (N, 1, 36, 36), generator=random).to(torch.uint8)},
        "note": {"tokens": torch.randint(4, 300, (N, 1, 5), generator=random)},
        "lab": {"vector": lab},
    }


def dataset(observed: torch.Tensor = OBSERVED, labels: torch.Tensor | None = None) -> Dataset:
    ids = tuple(f"s{i}" for i in range(N))
    return Dataset(NAMES, inputs(), observed, torch.arange(N) % 2 if labels is None else labels, ids, ids)  # type: ignore[arg-type]


def program(**changes: Any) -> Program:
    torch.manual_seed(0)
    made = Program(config(**changes), SHAPES, 2)
    made.model.decoders.fit(dataset())
    return made


def whole(data: Dataset) -> Batch:
    return data.batch(torch.arange(N))


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("completions", [0, 2])
def test_one_observed_site_a_modality_with_the_density_of_what_is_there(completions: int, hidden: int) -> None:
    made = program(decoders={"kind": "normal", "weight": 0.25, "hidden": hidden})
    model, guide = traces(made, whole(dataset()), completions)
    for m, name in enumerate(NAMES):
        site = model.nodes[sites.features(name)]
        assert site["is_observed"]
        assert sites.features(name) not in guide.nodes
        one = made.model.decoders.each[f"of_{name}"]
        z = guide.nodes[sites.latent(name)]["value"]
        z = z[0] if completions else z
        x = one.target(site_features(name))
        each = torch.distributions.Normal(one.decoder.network(z), one.decoder.scale).log_prob(x)
        varies = one.scale > 0
        assert bool(varies.all()) == (name in ("ehr", "xray"))  # a column of the lab and unused words do not, and are not explained
        each = each[:, varies]
        torch.testing.assert_close(site["log_prob"], 0.25 * each.sum(-1).where(OBSERVED[:, m], torch.zeros(())))


def site_features(name: str) -> torch.Tensor:
    from cm2pyro.data.pooled import pooled, pooled_view

    view = pooled_view(SHAPES[name])
    return pooled(view, inputs()[name][view])


def test_features_are_standardised_over_the_training_rows_that_have_them() -> None:
    made = program()
    for m, name in enumerate(NAMES):
        one = made.model.decoders.each[f"of_{name}"]
        x = one.target(site_features(name))[OBSERVED[:, m]]
        varies = one.scale > 0
        torch.testing.assert_close(x.mean(0), torch.zeros(x.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(x.std(0, unbiased=False), varies.float(), atol=1e-3, rtol=0)


def test_terms_add_up_to_the_elbo() -> None:
    made = program()
    rows = whole(dataset())
    value = -made.loss(rows).item()
    model, guide = made.trace_elbo.traces
    names = ("weights", "locs", "scales", "copula")
    globals_ = sum((model.nodes[n]["log_prob_sum"] - guide.nodes[n]["log_prob_sum"]).item() for n in names)
    terms = made.terms(rows)
    assert terms.features < 0
    assert value == pytest.approx(terms.outcome + terms.features - 0.5 * sum(terms.kl.values()) + globals_ / N, rel=1e-4)


@pytest.mark.parametrize("missing", ["conditional", "amortized"])
def test_an_absent_modality_gets_no_gradient_from_its_decoder(missing: str) -> None:
    made = program(guide={"missing": missing})
    observed = OBSERVED & torch.tensor([True, False, True, True])
    made.loss(whole(dataset(observed))).backward()
    for name in NAMES:
        for module in (made.guide.locals[f"of_{name}"], made.model.decoders.each[f"of_{name}"]):
            got = any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())
            assert got == (name != "xray"), name
    assert all(bool(p.grad.isfinite().all()) for p in made.parameters() if p.grad is not None)


def test_nobody_has_anything() -> None:
    loss = program().loss(whole(dataset(~torch.ones_like(OBSERVED))))
    loss.backward()
    assert bool(loss.isfinite())


def test_a_batch_without_labels_teaches_latents_and_decoders_and_no_head() -> None:
    gradients = {}
    for kind in ("none", "normal"):
        made = program(decoders={"kind": kind})
        loss = made.loss(whole(dataset(labels=torch.full((N,), -1))))
        loss.backward()
        assert bool(loss.isfinite())
        assert not made.trace_elbo.traces[0].nodes[sites.OUTCOME]["log_prob"].any()
        for module in (made.model.head, made.model.fusion):
            assert not any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())
        for name in NAMES:
            gradients[kind, name] = torch.cat(
                [p.grad.flatten() for p in made.guide.locals[f"of_{name}"].parameters() if p.grad is not None]
            )
            assert bool(gradients[kind, name].any())
            if kind == "normal":
                decoder = made.model.decoders.each[f"of_{name}"]
                assert all(p.grad is not None and bool(p.grad.any()) for p in decoder.parameters())
    # The decoders reach the encoders, beyond what the prior asks of them.
    assert all(not torch.allclose(gradients["none", name], gradients["normal", name]) for name in NAMES)


@pytest.mark.parametrize("coupling", ["shared", "full"])
def test_rows_without_a_label_leave_the_outcome_as_it_is(coupling: str) -> None:
    """Gradients of the head from labelled rows alone are those with unlabelled rows beside them, at the same noise."""
    labels = torch.tensor([1, 0, 1, -1, -1, -1])
    found = []
    for other in (labels, labels.where(labels >= 0, torch.tensor(-1))):
        made = program(prior={"components": 2, "coupling": coupling})
        rows = whole(dataset(labels=other))
        torch.manual_seed(4)
        made.loss(rows).backward()
        log_prob = made.trace_elbo.traces[0].nodes[sites.OUTCOME]["log_prob"]
        assert bool((log_prob[:3] < 0).all())
        assert not log_prob[3:].any()
        found.append(made.model.head.weight.grad.clone())
    assert found[0].equal(found[1])


def test_conditioning_a_latent_moves_what_its_decoder_says() -> None:
    made = program()
    rows = whole(dataset(torch.ones_like(OBSERVED)))
    found = []
    for value in (0.0, 3.0):
        trace = conditioned(made, rows, {sites.latent("lab"): torch.full((N, D), value)})
        one = made.model.decoders.each["of_lab"]
        normal = torch.distributions.Normal(one.decoder.network(torch.full((N, D), value)), one.decoder.scale)
        expected = normal.log_prob(one.target(rows.inputs["lab"]["vector"]))[:, :2].sum(-1)
        torch.testing.assert_close(trace.nodes[sites.features("lab")]["log_prob"], expected)
        found.append(expected)
    assert not torch.allclose(*found)


def test_the_scale_has_a_floor_and_a_copied_feature_a_highest_density() -> None:
    decoder = NormalDecoder(1, 1)
    with torch.no_grad():
        decoder.raw_scale.fill_(-50.0)
    assert float(decoder.scale.detach()) == pytest.approx(0.1)
    one = ScaledDecoder("vector", decoder)
    one.fit(torch.full((4, 1), 1e7))
    assert not one.target(torch.full((4, 1), 1e7)).any()


@pytest.mark.slow
def test_none_leaves_a_fit_as_it_was_and_only_names_some() -> None:
    assert program(decoders={"kind": "none"}).model.decoders.names == ()
    some = program(decoders={"kind": "normal", "only": ["lab"]})
    assert some.model.decoders.names == ("lab",)
    model, _ = traces(some, whole(dataset()))
    assert sites.features("ehr") not in model.nodes


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"kind": "norml"}, "decoders.*normal"),
        ({"kind": "normal", "only": ["labb"]}, "decoders.only: no modality 'labb'.*lab"),
        ({"kind": "normal", "hiden": 3}, "decoders.hiden.*hidden"),
        ({"kind": "normal", "hidden": -1}, "decoders.hidden"),
        ({"kind": "normal", "weight": 0}, "decoders.weight"),
        ({"kind": "none", "hidden": 3}, "decoders.hidden"),
    ],
)
def test_a_wrong_section_is_refused_in_one_line(section: dict[str, Any], says: str) -> None:
    raw = {"modalities": {"lab": {"kind": "embedding", "encoder": "mlp"}}, "decoders": section}
    with pytest.raises(ConfigError, match=says) as caught:
        CM2.from_config(raw)
    assert "\n" not in str(caught.value)


# --- whole fits ------------------------------------------------------------------------------------------------------


def table(n: int, labelled: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    z = random.normal(size=(n, 1, 2)) + 2 * random.integers(0, 2, size=(n, 1, 1))
    x = z + 0.5 * random.normal(size=(n, 2, 2))
    there = random.random((n, 2)) < 0.8
    ids = [f"s{i}" for i in range(n)]
    label = (random.random(n) < 1 / (1 + np.exp(-2 * (z[:, 0, 0] - 1)))).astype(int).astype(str)
    label[random.permutation(n)[labelled:]] = ""
    columns = {f"m{m}": [json.dumps(v.tolist()) if seen else "" for v, seen in zip(x[:, m], there[:, m], strict=True)] for m in range(2)}
    return pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": "train", "label": label, **columns})


def small(**fit: Any) -> dict[str, Any]:
    return {
        "modalities": {f"m{m}": {"kind": "embedding", "encoder": "mlp", "hidden": 8} for m in range(2)},
        "latent": {"dim": 2},
        "prior": {"components": 2},
        "guide": {"missing": "amortized"},
        "fusion": {"kind": "mlp", "hidden": 4},
        "decoders": {"kind": "normal", "hidden": 4},
        "fit": {"epochs": 2, "batch_size": 32, "lr": 0.01, "patience": 50, "restarts": 1, **fit},
    }


def test_a_run_keeps_decoders_and_imputation_network_and_resumes(tmp_path: Path) -> None:
    data = table(80, 60)
    fitted = CM2.from_config(small()).fit(data, out=tmp_path / "run")
    before = fitted.predict(data, draws=20)
    loaded = CM2.load(tmp_path / "run")
    pd.testing.assert_frame_equal(loaded.predict(data, draws=20), before, check_exact=True)
    kept = loaded.program.state_dict()
    for key, value in fitted.program.state_dict().items():
        assert kept[key].equal(value), key
    assert {key.split(".")[1] for key in kept if "decoders" in key or "treat" in key} == {"decoders", "treat"}
    longer = CM2.from_config(small(epochs=3)).fit(data, out=tmp_path / "run", resume=True)
    straight = CM2.from_config(small(epochs=3)).fit(data)
    for key, value in straight.program.state_dict().items():
        assert longer.program.state_dict()[key].equal(value), key
    assert "features" in longer.history[-1]


@pytest.mark.slow
def test_fifty_labels_among_two_thousand_rows() -> None:
    said: list[str] = []
    fitted = CM2.from_config(small(epochs=2, batch_size=40), say=said.append).fit(table(2000, 50))
    assert any("1560 training rows have no label" in line for line in said)
    assert any("10 of 400 validation rows have a label" in line for line in said)
    # Of batches of 40 rows about a third have no label at all.
    assert all(np.isfinite(record["elbo"]) for record in fitted.history)
    assert fitted.history[-1]["features"] > fitted.history[0]["features"]
