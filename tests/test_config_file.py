"""Configs as YAML files: numbers and words, what is no config, bases, and what the command line puts over them."""

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2pyro.config import Config
from cm2pyro.config_file import apply_override, read_yaml
from cm2pyro.errors import ConfigError
from tests.config_texts import MINIMAL, outcome, read, written
from tests.refusals import config_refusal


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", "1.0e-3", "+1e-3", "10e-4", ".1e-2", "0.001"])
def test_numbers_with_an_exponent_are_numbers(tmp_path: Path, text: str) -> None:
    config = read(tmp_path, MINIMAL + f"fit: {{lr: {text}}}\nfusion: {{kind: mlp, rate: {text}}}\n", f"fit.beta={text}")
    assert config.fit.lr == config.fit.beta == 1e-3
    assert config.fusion.options == {"rate": 1e-3}, "also where no annotation asks for a number"


def test_words_that_look_like_exponents_stay_words(tmp_path: Path) -> None:
    assert read(tmp_path, MINIMAL + "fusion: {kind: e3, a: 1e, b: '1e3', c: e-3}\n").fusion.options == {"a": "1e", "b": "1e3", "c": "e-3"}


def test_bom_and_comments(tmp_path: Path) -> None:
    assert Config.from_file(written(tmp_path, b"\xef\xbb\xbf# first\n" + MINIMAL.encode())) == read(tmp_path, MINIMAL)


@pytest.mark.parametrize(
    "text", ["1e3", "0E0", "1_0", "0x10", "010", "1:30", "no", "null", "~", ".inf", "2020-01-01", "=", "<<", " x", "é\ud800"]
)
def test_text_that_looks_like_something_else_stays_text(tmp_path: Path, text: str) -> None:
    config = Config.from_dict({"modalities": {"ehr": {"kind": "timeseries", "encoder": "lstm", "x": text}}})
    config.to_file(tmp_path / "c.yaml")
    assert Config.from_file(tmp_path / "c.yaml").modalities["ehr"].options == {"x": text}


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ["expected a mapping of sections such as modalities and fit", "found NoneType"]),
        ("- a\n- b\n", ["expected a mapping", "found list"]),
        ("just words\n", ["found str"]),
        ("fit: {lr: 1\n", ["line 2", "not valid YAML", "mend the file"]),
        ("fit:\n\tlr: 1\n", ["line 2", "not valid YAML"]),
        ("a: 1\n---\nb: 2\n", ["not valid YAML", "line 2"]),
        ("fit: {lr: 1, lr: 2}\n", ["line 1", "key 'lr' stands twice"]),
        ("fit: {}\nlatent: {}\nfit: {}\n", ["line 3", "key 'fit' stands twice"]),
        ("modalities:\n  a: {kind: tabular, kind: text}\n", ["line 2", "key 'kind' stands twice"]),
        ("fit: &a {lr: 1}\nlatent: *a\n", ["line 2", "alias *a", "write it out"]),
        ("fit: &a [*a]\n", ["alias *a"]),
        ("? [a, b]\n: 1\n", ["line 1", "a key is not a word"]),
        ("? {a: 1}\n: 1\n", ["a key is not a word"]),
        ("fit: !!python/object:os.system {}\n", ["line 1", "not valid YAML"]),
        ("fit: {lr: 2020-13-45}\n", ["YAML cannot read", "month must be in 1..12", "quote it"]),
        ("fit: {lr: !!int ''}\n", ["YAML cannot read"]),
        ("fit: {lr: !!float x}\n", ["YAML cannot read"]),
        ("fit: {lr: !!bool x}\n", ["YAML cannot read"]),
        ("fit: {lr: !!timestamp x}\n", ["YAML cannot read"]),
        ("fit: {lr: !unknown x}\n", ["line 1", "not valid YAML"]),
        ("fit: {lr: " + "9" * 5000 + "}\n", ["YAML cannot read"]),
        ("fit: " + "[" * 1200 + "\n", ["config.yaml"]),
        ("fit: \x07\n", ["not valid YAML"]),
        (b"fit: \xff\n", ["cannot be read (not UTF-8 text)", "YAML file"]),
        (b"fit: \x00\n", ["not valid YAML"]),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str | bytes, says: list[str]) -> None:
    path = written(tmp_path, text)
    config_refusal(lambda: Config.from_file(path), str(path), *says)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    config_refusal(lambda: read_yaml(tmp_path / "absent.yaml"), "absent.yaml: cannot be read (No such file or directory)")
    config_refusal(lambda: read_yaml(tmp_path), f"{tmp_path}: cannot be read (Is a directory)")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml("nul\0")


# --- overrides -------------------------------------------------------------------------------------------------------


def test_overrides(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        MINIMAL + "fit: {epochs: 3}\n",
        *("fit.epochs=7", "fit.lr=2e-2", "latent.dim=4", " prior.copula.family =frank", "modalities.ehr.table=a=b.csv"),
        *("modalities.new={kind: tabular, encoder: mlp, columns: [a, b]}", "fit.epochs=8", "priors.locs.dist=Normal"),
    )
    assert (config.fit.epochs, config.fit.lr, config.latent.dim, config.prior.copula.family) == (8, 0.02, 4, "frank")
    assert config.modalities["ehr"].table == "a=b.csv"
    assert config.modalities["new"].columns == ["a", "b"]
    assert read(tmp_path, MINIMAL, "modalities.ehr.table=") == read(tmp_path, MINIMAL)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("fit.epochs", ["--set fit.epochs: ", "expected key=value such as fit.epochs=10"]),
        ("=3", ["expected key=value"]),
        ("fit..lr=3", ["expected key=value"]),
        (".lr=3", ["expected key=value"]),
        ("fit.epochs.x=3", ["'epochs' is not a section"]),
        ("fit.epochs.x.y=3", ["'epochs' is not a section"]),
        ("fit.epochs=[1", ["not valid YAML", "quote it"]),
        ("fit.epochs=*a", ["alias *a"]),
        ("fit.epochs=&a [*a]", ["alias *a"]),
        ("fit.epochs={a: 1, a: 2}", ["'a' stands twice"]),
        ("fit.epochs=2020-13-45", ["YAML cannot read"]),
        ("a\nb", ["--set a b: "]),
    ],
)
def test_refused_overrides(override: str, says: list[str]) -> None:
    raw = {"fit": {"epochs": 3}}
    config_refusal(lambda: apply_override(raw, override), "--set ", *says)
    assert raw["fit"]["epochs"] == 3


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("fit.epoch=3", ["unknown key 'fit.epoch'", "did you mean 'epochs'?"]),
        ("fit.epochs=", ["fit.epochs", "found None"]),
        ("fit.epochs=x", ["fit.epochs", "found 'x'"]),
        ("modalities.img.encoder=mlp", ["modalities.img.kind", "required"]),
    ],
)
def test_overrides_are_checked_like_the_file(tmp_path: Path, override: str, says: list[str]) -> None:
    config_refusal(lambda: read(tmp_path, MINIMAL, override), *says)


# --- anything at all -------------------------------------------------------------------------------------------------

_PIECES = [
    "modalities:", "fit:", "kind", ": ", "\n", "\n  ", "{", "}", "[", "]", "&a ", "*a", "!!", "!!int ", "!!set ",
    "!!omap ", "? ", "- ", "|", ">", "'", '"', "<<", "1e3", "0x", "1:30", ".inf", "~", "null", "true", "=", "%", "---",
    "...", "#", "@", ",", "2020-01-01", "\t", "\x00", "é",
]  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(
    st.one_of(
        st.text(max_size=40),
        st.lists(st.sampled_from(_PIECES), max_size=14).map("".join),
        st.lists(st.sampled_from(_PIECES), max_size=8).map(lambda p: MINIMAL + "".join(p)),
    )
)
def test_any_text_is_read_or_refused(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        assert len(outcome(lambda: Config.from_file(path)).splitlines()) <= 1
    assert len(outcome(lambda: apply_override({"fit": {}}, f"fit.lr={text}")).splitlines()) <= 1
    assert len(outcome(lambda: apply_override({"fit": {}}, text)).splitlines()) <= 1


def test_a_config_built_on_another(tmp_path: Path) -> None:
    whole = {"modalities": {"a": {"kind": "embedding", "encoder": "mlp", "hidden": 8}}, "fit": {"epochs": 7, "lr": 1e-2}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(whole))
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "one.yaml").write_text("base: ../base.yaml\nfit: {lr: 1e-4}\nmodalities: {a: {hidden: 16}}\n")
    (tmp_path / "two.yaml").write_text("base: deeper/one.yaml\nprior: {components: 2}\n")
    config = Config.from_file(tmp_path / "two.yaml", ("fit.epochs=9",))
    assert (config.fit.epochs, config.fit.lr, config.prior.components) == (9, 1e-4, 2)
    assert config.modalities["a"].options == {"hidden": 16}
    assert config.modalities["a"].kind == "embedding"
    # What is written is the whole.
    config.to_file(tmp_path / "resolved.yaml")
    assert "base" not in read_yaml(tmp_path / "resolved.yaml")
    assert Config.from_file(tmp_path / "resolved.yaml") == config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("base: absent.yaml\n", ["absent.yaml: cannot be read (No such file or directory)"]),
        ("base: [a]\n", ["config.yaml: base: found ['a'], expected the name of a YAML file"]),
        ("base: config.yaml\n", ["base: more than 10 files name one another", "look for a circle"]),
        ("base: list.yaml\n", ["list.yaml: expected a mapping of sections", "found list"]),
    ],
)
def test_bases_that_are_none(tmp_path: Path, text: str, says: list[str]) -> None:
    (tmp_path / "list.yaml").write_text("[1, 2]\n")
    path = written(tmp_path, text)
    config_refusal(lambda: Config.from_file(path), *says)
