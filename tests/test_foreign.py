"""Classes of a package outside this one, named in a config or registered by a program."""

import copy
import json
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from cm2pyro import CM2
from cm2pyro.config import Config
from cm2pyro.distributions import FAMILIES, make_copula
from cm2pyro.encoders import ENCODERS
from cm2pyro.errors import FOREIGN, CheckpointError, ConfigError
from cm2pyro.foreign import is_place, versions_of
from cm2pyro.models import DECODERS
from cm2pyro.models.priors import PRIORS
from cm2pyro.registry import Registry
from cm2pyro.sweep.trial import Task, _evaluate
from tests import outside
from tests.cli.commands import call, refused
from tests.inference.fits import settings, table

NAME = "outside_of_it"


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, a manifest, a config that names its classes, and a run of that."""
    folder = tmp_path_factory.mktemp("outside")
    outside.write(folder, NAME, root)
    rows = table()
    rows["split"] = ["train"] * 36 + ["val"] * 12 + ["test"] * 12
    rows.to_csv(folder / "manifest.csv", index=False)
    (folder / "config.yaml").write_text(yaml.safe_dump(outside.config(NAME)))
    with outside.apart(NAME):
        sys.path.append(str(folder))
        CM2.from_config(folder / "config.yaml").fit(folder / "manifest.csv", folder / "run", device="cpu")
    return folder


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    with outside.apart(NAME):
        yield


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, the current folder."""
    monkeypatch.chdir(made)
    return made


@pytest.mark.slow
def test_the_run_records_their_versions(made: Path) -> None:
    assert json.loads((made / "run" / "env.json").read_text())["packages"] == {NAME: "unknown"}
    found = versions_of(["torch.nn:Linear", "torch:Tensor", "google.nowhere:A", f"{NAME}.encoders:Wide"])
    assert found["torch"] == version("torch")
    assert set(found) == {"torch", "google", NAME}


def changed(key: str, value: object) -> dict:
    raw = copy.deepcopy(outside.config(NAME))
    place = raw
    *sections, last = key.split(".")
    for part in sections:
        place = place.setdefault(part, {})
    place[last] = value
    return raw


def test_a_run_is_refused_before_anything_is_imported_and_loaded_with_trust(here: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        CM2.load("run")
    assert not outside.imported(NAME)
    text = str(caught.value)
    assert text.startswith("run/config.yaml: ")
    assert len(text.splitlines()) == 1
    for key, place in list(outside.NAMES.items())[:3]:
        assert f"{key} is {NAME}.{place}" in text
    assert "and 1 more" in text
    assert "--trust-code" in text
    assert "trust_code=True" in text
    model = CM2.load("run", trust_code=True)
    assert {type(encoder).__module__ for encoder in model.program.guide.encoders()} == {f"{NAME}.encoders", "cm2pyro.encoders.mlp"}
    assert type(model.mixture().copula).__module__ == f"{NAME}.copulas"
    assert {type(one.decoder).__name__ for one in model.program.model.decoders.each.values()} == {"StudentT"}
    again = CM2.from_config("config.yaml").fit("manifest.csv", device="cpu")
    pd.testing.assert_frame_equal(model.predict("manifest.csv", draws=5), again.predict("manifest.csv", draws=5))
    with pytest.raises(CheckpointError, match="trust"):
        CM2.load("run")  # what this process has imported does not speak for the folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "also"),
    [
        ("predict run --data manifest.csv --out predictions.csv --draws 2", "predictions.csv"),
        ("impute run --data manifest.csv --out latents.nc --draws 2", "latents.nc"),
        ("evaluate run --data manifest.csv --out metrics.json --draws 2 --bootstrap 0", "metrics.json"),
        ("recalibrate run --data manifest.csv --method none --draws 2", "run/recalibration.json"),
        ("priors sensitivity run --data manifest.csv --refit wider.yaml --out sensitivity", "sensitivity/refits.csv"),
    ],
)
def test_commands_ask_for_trust(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, command: str, also: str) -> None:
    shutil.copytree(here, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    Path("wider.yaml").write_text(f"priors: {{scales: {{dist: '{NAME}.priors:HalfStudentT', df: 4, scale: 2}}}}")
    err = refused(capsys, 1, *command.split())
    assert "run/config.yaml: modalities.b.encoder is" in err
    assert not outside.imported(NAME)
    assert not Path(also).exists()
    code, _, err = call(capsys, *command.split(), "--trust-code")
    assert code == 0, err
    assert Path(also).exists()


@pytest.mark.slow
def test_select_and_diagnose_with_trust(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("run", tmp_path / "run")
    families = f"gaussian,{NAME}.copulas:ExchangeableCopula,mixture"
    asked = ["select", "--run", tmp_path / "run", "--data", "manifest.csv", "--families", families, "--components", "1", "--out"]
    assert "--trust-code" in refused(capsys, 1, *asked, tmp_path / "selection")
    assert "belongs to --run" in refused(capsys, 2, "select", "config.yaml", *asked[3:], tmp_path / "selection", "--trust-code")
    code, said, err = call(capsys, *asked, tmp_path / "selection", "--trust-code")
    assert code == 0, err
    assert f"{NAME}.copulas:ExchangeableCopula, K = 1" in said
    code, _, err = call(capsys, "diagnose", tmp_path / "run", "--data", "manifest.csv", "--draws", 5, "--trust-code")
    assert code == 0, err
    assert "exchangeable" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_the_user_s_own_config_is_trusted(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        "data check manifest.csv --config config.yaml",
        "priors list config.yaml",
        f"fit config.yaml --data manifest.csv --out {tmp_path}/run",
        f"fit config.yaml --data manifest.csv --out {tmp_path}/run --resume --set fit.epochs=2",
    ):
        code, said, err = call(capsys, *command.split())
        assert code == 0, err
        if "list" in command:
            assert f"{NAME}.priors:HalfStudentT(df=3, scale=1)" in said
    assert len(CM2.load(tmp_path / "run", trust_code=True).history) == 2


def test_a_run_that_names_other_code_than_the_user_s_config_is_not_resumed(here: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree("run", tmp_path / "run")
    Path("wicked.py").write_text("open('imported', 'w').write('code ran')")
    edited = (tmp_path / "run" / "config.yaml").read_text().replace(f"{NAME}.encoders:Wide", "wicked:Net")
    (tmp_path / "run" / "config.yaml").write_text(edited)
    err = refused(capsys, 2, "fit", "config.yaml", "--data", "manifest.csv", "--out", tmp_path / "run", "--resume")
    assert f"modalities.b.encoder is '{NAME}.encoders:Wide', and the run in" in err
    assert not Path("imported").exists()
    Path("wicked.yaml").write_text(edited)  # the user's own: that is what would have happened
    assert "wicked has no Net" in refused(capsys, 2, "data", "check", "manifest.csv", "--config", "wicked.yaml")
    assert Path("imported").exists()
    outside.forget("wicked")


@pytest.mark.slow
def test_a_sweep_trusts_its_own_config_and_no_trial_s(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ["--grid", f"modalities.b.encoder=mlp,{NAME}.encoders:Wide", "--jobs", 1, "--evaluate", "test"]
    code, said, err = call(capsys, "sweep", "config.yaml", "--data", "manifest.csv", "--out", tmp_path / "out", *grid, "--device", "cpu")
    assert code == 0, err
    assert "failed" not in said
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    assert results["modalities.b.encoder"].tolist() == ["mlp", f"{NAME}.encoders:Wide"]
    assert results["test_log_loss"].notna().all()
    outside.forget(NAME)
    folder = tmp_path / "out" / "trials" / "0002"
    task = Task(str(folder), CM2.load(folder, trust_code=True).config.to_dict(), "manifest.csv", "cpu", test=True)
    Path("trap.py").write_text("open('trapped', 'w')")
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace(f"{NAME}.encoders:Wide", "trap:Net"))
    with pytest.raises(CheckpointError, match=r"modalities\.b\.encoder is trap:Net"):
        _evaluate(task)
    assert not Path("trapped").exists()


def test_the_current_folder_is_searched_last(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.from_dict(outside.config(NAME))
    before = list(sys.path)
    Config.from_file("config.yaml")
    assert sys.path == before, "a config that is only read"
    CM2.from_config(config)
    assert sys.path == [*before, str(here)]
    other = tmp_path / "other"
    other.mkdir()
    (other / "yaml.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(other)
    with pytest.raises(ConfigError, match="yaml has no Encoder"):
        CM2.from_config(changed("modalities.b.encoder", "yaml:Encoder"))
    monkeypatch.setattr("cm2pyro.foreign.sys", type("System", (), {"flags": type("Flags", (), {"safe_path": True}), "modules": {}}))
    (other / "only_here.py").touch()
    with pytest.raises(ConfigError, match="no module only_here"):
        CM2.from_config(changed("modalities.b.encoder", "only_here:Encoder"))


@pytest.mark.parametrize(
    ("key", "place", "says"),
    [
        ("modalities.b.encoder", "nowhere_at_all:Wide", "there is no module nowhere_at_all; expected one that is installed"),
        ("modalities.b.encoder", f"{NAME}.nothing:Wide", f"there is no module {NAME}.nothing;"),
        ("modalities.b.encoder", f"{NAME}.encoders:Wida", f"{NAME}.encoders has no Wida; did you mean 'Wide'? known: "),
        ("modalities.b.encoder", f"{NAME}.broken:Wide", "importing outside_of_it.broken failed (ModuleNotFoundError: No module named"),
        ("modalities.b.encoder", f"{NAME}.leaving:Wide", "failed (SystemExit: 0); mend that module"),
        ("modalities.b.encoder", f"{NAME}.encoders:NUMBER", "found int, expected a subclass of cm2pyro.encoders.Encoder"),
        ("modalities.b.encoder", f"{NAME}.encoders:NoViews", "does not define views, expected views, forward"),
        ("modalities.b.encoder", f"{NAME}.encoders:Positional", "expected (shapes, *, options); options are keyword-only"),
        ("modalities.b.encoder", f"{NAME}.copulas:ExchangeableCopula", "found another class, expected a subclass of cm2pyro.encoders"),
        ("modalities.b.encoder", "cm2pyro.encoders:Encoder", "found another class"),
        ("modalities.b.encoder", "os:system", "found builtin_function_or_method, expected a subclass"),
        ("modalities.b.encoder", f"{NAME}.encoders:", "unknown encoder"),
        ("modalities.b.encoder", f"{NAME}/encoders:Wide", "encoder"),
        ("modalities.b.hiden", 3, "modalities.b.hiden: unknown key"),
        ("modalities.b.hidden", 0, "modalities.b.hidden: "),
        ("prior.copula.family", f"{NAME}.encoders:Wide", "expected a subclass of cm2pyro.distributions.Copula"),
        ("prior.copula.family", f"{NAME}.copulas:Exchangable", "did you mean 'ExchangeableCopula'?"),
        ("prior.copula.family", "exchangeable", "unknown copula family"),
        ("priors.scales.dist", f"{NAME}.encoders:Wide", "expected a subclass of pyro.distributions.TorchDistribution"),
        ("priors.scales.dff", 3, "priors.scales.dff: "),
        ("decoders.kind", f"{NAME}.encoders:Wide", "expected a subclass of cm2pyro.models.Decoder"),
        ("decoders.df", 0, "decoders.df: "),
        ("fusion.kind", f"{NAME}.encoders:Wide", "unknown fusion"),
    ],
)
def test_refused_in_one_line(here: Path, capsys: pytest.CaptureFixture[str], key: str, place: object, says: str) -> None:
    Path("wrong.yaml").write_text(yaml.safe_dump(changed(key, place)))
    err = refused(capsys, 2, "data", "check", "manifest.csv", "--config", "wrong.yaml")
    assert key in err
    assert says in err


def test_a_fault_in_the_class_is_said_to_be_its_own(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("failing.yaml").write_text(yaml.safe_dump(changed("modalities.b.encoder", f"{NAME}.encoders:Failing")))
    err = refused(capsys, 1, "fit", "failing.yaml", "--data", "manifest.csv", "--out", tmp_path / "run")
    assert f"unexpected ValueError: no rows, please; raised by {NAME}.encoders, which a config names" in err
    FOREIGN.clear()
    _, _, err = call(capsys, "fit", "failing.yaml", "--data", "manifest.csv", "--out", tmp_path / "again")
    assert f"raised by {NAME}.encoders" in err


def test_a_family_in_a_mixture_has_sites_of_its_own(here: Path) -> None:
    family, site = f"{NAME}.copulas:ExchangeableCopula", f"copula_{NAME}_copulas_ExchangeableCopula"
    raw = changed("prior.copula", {"family": "mixture", "families": ["clayton", family]})
    raw["priors"][site] = {"dist": "Beta", "concentration1": 2, "concentration0": 2}
    model = CM2.from_config(raw).fit("manifest.csv", device="cpu")
    assert {site, "copula_clayton", "copula_weights"} <= set(model.program.values())


def test_a_family_s_name_alone_is_never_imported(here: Path) -> None:
    """It may stand in a data set's own file, as in truth.json."""
    with pytest.raises(ConfigError, match="unknown copula family"):
        make_copula(f"{NAME}.copulas:ExchangeableCopula", 2, tau=0.3)
    assert not outside.imported(NAME)


@pytest.mark.parametrize("name", ["a:B", "a.b_c:D1", "é:É", "_a:_b"])
def test_what_a_place_is(name: str) -> None:
    assert is_place(name)


@pytest.mark.parametrize(
    "name", ["", "a", "a.b", "a:b.c", ":B", "a:", "a b:C", ".a:B", "a..b:C", "a.:B", "a:B\n", "1a:B", "a/b:C", "./a:B", "a:b:C", "a:B()", 3]
)
def test_what_a_place_is_not(name: object) -> None:
    assert not is_place(name)


def test_a_column_with_a_colon_is_no_code() -> None:
    raw = settings(task={"label": "icu:death"})
    raw["modalities"]["b"]["column"] = "vital:signs"
    assert Config.from_dict(raw).foreign() == {}
    assert Config.from_dict(outside.config(NAME)).foreign() == {key: f"{NAME}.{place}" for key, place in outside.NAMES.items()}


@pytest.mark.parametrize("registry", [ENCODERS, FAMILIES, PRIORS, DECODERS], ids=lambda registry: registry.kind)
def test_what_is_asked_of_others_holds_for_our_own(registry: Registry[type]) -> None:
    contract = registry.contract
    assert contract is not None
    classes = [entry for entry in map(registry.get, registry.names()) if isinstance(entry, type)]
    assert classes
    assert [contract.fault(entry) for entry in classes] == [None] * len(classes)


def test_the_encoder_is_the_one_of_the_package(here: Path) -> None:
    model = CM2.load("run", trust_code=True)
    encoder = model.program.guide.encoders()[1]
    assert encoder.width == 3
    x = torch.ones(2, 2)
    torch.testing.assert_close(encoder({"vector": x}), encoder.layer(x).relu())
