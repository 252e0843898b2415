"""The config: what is refused, in which words, and that a config round-trips."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cm2pyro.config import Config
from cm2pyro.encoders import check_encoders
from tests.config_texts import MINIMAL, outcome, read
from tests.refusals import config_refusal

SHIPPED = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


# --- what is read ----------------------------------------------------------------------------------------------------


def test_defaults(tmp_path: Path) -> None:
    config = read(tmp_path, MINIMAL)
    assert (config.task.type, config.task.label, config.latent.dim, config.prior.components) == ("binary", "label", 32, 3)
    assert (config.guide.missing, config.fusion.kind, config.missingness.model, config.fit.lr) == ("conditional", "lstm", "ignorable", 1e-3)
    assert config.modalities["ehr"].options == {}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configs_round_trip(path: Path, tmp_path: Path) -> None:
    config = Config.from_file(path)
    check_encoders(config)
    config.to_file(tmp_path / "again.yaml")
    assert Config.from_file(tmp_path / "again.yaml") == config


def test_there_are_shipped_configs() -> None:
    assert {"physionet2012.yaml", "simulated.yaml", "simulated-embedding.yaml"} <= {path.name for path in SHIPPED}


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
)
OPTIONS = st.dictionaries(st.from_regex(r"x[a-z_]{1,8}", fullmatch=True), st.one_of(SCALARS, st.lists(SCALARS, max_size=3)), max_size=3)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(OPTIONS, OPTIONS, st.floats(1e-12, 1e3), st.text(min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_any_config_round_trips(modality: dict[str, Any], prior: dict[str, Any], lr: float, label: str, seed: int) -> None:
    raw = {
        "task": {"type": "multiclass", "label": "the " + label, "classes": ["001", "no", label + "x"]},
        "modalities": {"ehr": {"kind": "timeseries", "encoder": "lstm", "hours": 24} | modality},
        "priors": {"locs": {"dist": "Normal"} | prior},
        "fit": {"lr": lr, "seed": seed},
    }
    config = Config.from_dict(raw)
    with tempfile.TemporaryDirectory() as folder:
        config.to_file(Path(folder) / "c.yaml")
        again = Config.from_file(Path(folder) / "c.yaml")
    assert again == config
    assert again.to_dict() == config.to_dict()
    assert again.modalities["ehr"].options == modality
    assert again.fit.lr == lr


def test_frozen(tmp_path: Path) -> None:
    config = read(tmp_path, MINIMAL + "fusion: {kind: mlp, layers: 1}\n")
    for section, key in (
        (config, "fit"),
        (config.fit, "lr"),
        (config.modalities["ehr"], "kind"),
        (config.fusion, "layers"),
        (config.task, "new"),
    ):
        with pytest.raises(ValidationError):
            setattr(section, key, "x")


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fitt: {}", ["unknown key 'fitt'", "did you mean 'fit'?"]),
        ("task: {tpe: binary}", ["unknown key 'task.tpe'", "did you mean 'type'?"]),
        ("latent: {dims: 3}", ["unknown key 'latent.dims'", "did you mean 'dim'?"]),
        ("prior: {component: 3}", ["unknown key 'prior.component'", "did you mean 'components'?"]),
        ("prior: {copula: {famly: x}}", ["unknown key 'prior.copula.famly'", "did you mean 'family'?"]),
        ("priors: {scale: {dist: Normal}}", ["unknown key 'priors.scale'", "did you mean 'scales'?"]),
        ("guide: {global: delta}", ["unknown key 'guide.global'", "did you mean 'globals'?"]),
        ("fit: {learning_rate: 1}", ["unknown key 'fit.learning_rate'", "known: "]),
        # Known elsewhere: the place is named.
        ("epochs: 3", ["unknown key 'epochs'", "did you mean 'fit.epochs'?"]),
        ("latent: {components: 3}", ["unknown key 'latent.components'", "did you mean 'prior.components'?"]),
        ("prior: {family: x}", ["unknown key 'prior.family'", "did you mean 'prior.copula.family'?"]),
        ("3: x", ["unknown key '3'"]),
        ("null: x", ["unknown key 'None'"]),
        ('"a\\nb\\e": x', ["unknown key 'a b?'"]),
    ],
)
def test_unknown_keys_name_the_nearest(tmp_path: Path, text: str, says: list[str]) -> None:
    config_refusal(lambda: read(tmp_path, MINIMAL + text + "\n"), str(tmp_path / "config.yaml"), *says)


def test_unknown_keys_of_open_sections_are_refused_by_what_they_name(tmp_path: Path) -> None:
    config = read(tmp_path, "modalities: {ehr: {kind: timeseries, encoder: lstm, bin_hour: 2}}\n")
    config_refusal(lambda: check_encoders(config), "modalities.ehr.bin_hour", "did you mean 'bin_hours'?")


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fit: {epochs: 0}", ["fit.epochs", "greater than 0", "found 0"]),
        ("fit: {epochs: 1.5}", ["fit.epochs", "integer", "found 1.5"]),
        ("fit: {epochs: many}", ["fit.epochs", "integer", "found 'many'"]),
        ("fit: {epochs: true}", ["fit.epochs", "expected a number", "found True"]),
        ("fit: {lr: yes}", ["fit.lr", "expected a number"]),
        ("fit: {lr: }", ["fit.lr", "number", "found None"]),
        ("fit: {lr: .nan}", ["fit.lr", "nan", "finite"]),
        ("fit: {lr: .inf}", ["fit.lr", "inf", "finite"]),
        ("fit: {lr: 1e999}", ["fit.lr", "inf", "finite"]),
        ("fit: {beta: 1.1}", ["fit.beta", "less than or equal to 1", "found 1.1"]),
        ("fit: {ema: 1}", ["fit.ema", "less than 1"]),
        ("fit: {seed: -1}", ["fit.seed", "greater than or equal to 0", "found -1"]),
        ("fit: {seed: 4294967296}", ["fit.seed", "less than 4294967296"]),
        ("fit: {batch_size: " + "9" * 400 + "}", ["fit.batch_size", "1000000000"]),
        ("fit: 3", ["fit: ", "dictionary", "found 3"]),
        ("fit:", ["fit: ", "found None"]),
        ("latent: {dim: [1]}", ["latent.dim", "found [1]"]),
        ("task: {type: survival}", ["task.type", "'binary'", "found 'survival'"]),
        ("task: {label: 3}", ["task.label", "string", "found 3"]),
        ("task: {type: multiclass, classes: [0, 1]}", ["task.classes.0", "string", "found 0"]),
        ("task: {type: multiclass, classes: [a]}", ["task.classes", "at least 2"]),
        ("task: {type: multiclass, classes: [a, b, a]}", ["task: classes", "twice", "expected distinct names"]),
        ("task: {type: multiclass, classes: [a, '']}", ["task: classes", "empty"]),
        ("task: {classes: [a, b]}", ["task: classes belongs to type multiclass, this one is binary", "remove"]),
        ("task: {labels: [a, b]}", ["task: labels belongs to type multilabel"]),
        ("task: {type: multilabel}", ["task: type multilabel needs the columns of its labels", "labels: [a, b]"]),
        ("task: {type: multilabel, labels: []}", ["task.labels", "at least 1"]),
        ("task: {type: multilabel, labels: [a, a]}", ["task: labels", "twice"]),
        ("priors: {locs: {loc: 0}}", ["priors.locs.dist", "required"]),
        ("priors: {locs: {dist: Normal, scale: .inf}}", ["priors.locs.scale", "inf", "finite number"]),
        ("priors: {locs: {dist: Normal, scale: [1, .nan]}}", ["priors.locs.scale.1", "nan"]),
        ("fusion: {kind: mlp, when: 2020-01-01}", ["fusion.when", "2020-01-01 (date)", "quote it"]),
        ("fusion: {kind: mlp, data: !!binary aGk=}", ["fusion.data", "bytes"]),
        ("fusion: {kind: mlp, data: !!set {a}}", ["fusion.data", "set"]),
        ("fusion: {kind: mlp, 1: 2}", ["fusion"]),
        ("guide: {globals: spline}", ["guide.globals", "found 'spline'"]),
    ],
)
def test_wrong_values_name_key_finding_and_expectation(tmp_path: Path, text: str, says: list[str]) -> None:
    config_refusal(lambda: read(tmp_path, MINIMAL + text + "\n"), str(tmp_path / "config.yaml"), *says)


@pytest.mark.parametrize(
    ("modality", "says"),
    [
        ("{encoder: lstm}", ["modalities.x.kind", "required"]),
        ("{kind: timeseries}", ["modalities.x.encoder", "required"]),
        ("{kind: audio, encoder: e}", ["modalities.x.kind", "found 'audio'"]),
        ("3", ["modalities.x", "found 3"]),
        ("{kind: timeseries, encoder: e, column: a, table: b}", ["modalities.x", "column and table", "keep one"]),
        ("{kind: tabular, encoder: e, hours: 3}", ["modalities.x", "hours belongs to kinds timeseries and text"]),
        ("{kind: text, encoder: e, bin_hours: 3}", ["modalities.x", "bin_hours belongs to kind timeseries"]),
        ("{kind: timeseries, encoder: e, columns: [a]}", ["modalities.x", "columns belongs to kinds tabular and embedding"]),
        ("{kind: tabular, encoder: e, columns: [a], column: b}", ["modalities.x", "column and columns", "keep one"]),
        ("{kind: tabular, encoder: e, columns: []}", ["modalities.x.columns", "at least 1"]),
        ("{kind: tabular, encoder: e, columns: [a, b, a]}", ["modalities.x", "columns names one twice"]),
        ("{kind: timeseries, encoder: e, hours: 0}", ["modalities.x.hours", "greater than 0"]),
        ("{kind: timeseries, encoder: e, hours: true}", ["modalities.x.hours", "expected a number"]),
        ("{kind: timeseries, encoder: e, bin_hours: 1e-9}", ["modalities.x", "more than 10000 bins", "widen bin_hours"]),
        ("{kind: timeseries, encoder: e, rate: .nan}", ["modalities.x.rate", "nan"]),
        # What the model is to predict, or who the patient is, may not be read as an input.
        ("{kind: tabular, encoder: e, columns: [age, died]}", ["modalities.x: column 'died' is the label of the task"]),
        ("{kind: embedding, encoder: e, column: died}", ["modalities.x: column 'died' is the label"]),
        ("{kind: tabular, encoder: e, columns: [subject_id]}", ["modalities.x: column 'subject_id' is not an input"]),
    ],
)
def test_wrong_modalities(tmp_path: Path, modality: str, says: list[str]) -> None:
    text = f"task: {{label: died}}\nmodalities:\n  x: {modality}\n"
    config_refusal(lambda: read(tmp_path, text), str(tmp_path / "config.yaml"), *says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modalities: {}", ["modalities", "at least 1"]),
        ("task: {}", ["modalities", "required"]),
        ("modalities: {lab values: {kind: tabular, encoder: e}}", ["'lab values' is not a name", "letters, digits"]),
        ("modalities: {2nd: {kind: tabular, encoder: e}}", ["'2nd' is not a name"]),
        ("modalities: {1: {kind: tabular, encoder: e}}", ["modalities.1", "string"]),
        ("modalities: {label: {kind: embedding, encoder: e}}", ["column 'label' is the label"]),
        ("modalities: {split: {kind: embedding, encoder: e}}", ["column 'split' is not an input"]),
        ('modalities: {"a\\nb": {kind: tabular, encoder: e}}', ["'a b' is not a name"]),
    ],
)
def test_wrong_modality_names(tmp_path: Path, text: str, says: list[str]) -> None:
    config_refusal(lambda: read(tmp_path, text + "\n"), *says)


def test_a_table_may_be_named_like_anything(tmp_path: Path) -> None:
    text = "modalities: {label: {kind: tabular, encoder: e, table: t.csv, columns: [label2]}}\n"
    assert read(tmp_path, text).modalities["label"].table == "t.csv"


@pytest.mark.parametrize("raw", [None, [], "x", 3, [("fit", {})]])
def test_a_dict_is_asked_for(raw: Any) -> None:
    config_refusal(lambda: Config.from_dict(raw), "config: expected a mapping with the keys", f"found {type(raw).__name__}")


JSON = st.recursive(
    st.one_of(SCALARS, st.floats(), st.integers()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["fit", "lr", "kind", "x", "table"]), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(Config.model_fields)), JSON)
def test_any_value_is_read_or_refused(key: str, value: Any) -> None:
    raw = {"modalities": {"ehr": {"kind": "timeseries", "encoder": "lstm"}}} | {key: value}
    assert len(outcome(lambda: Config.from_dict(raw)).splitlines()) <= 1
