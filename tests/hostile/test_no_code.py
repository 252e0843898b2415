"""Nothing in the package turns bytes of a file into code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "subprocess", "ctypes"}
CALLS = {"eval", "exec", "compile", "__import__"}


def offences(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"imports {name}" for name in names if name.split(".")[0] in PICKLES)
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        called = ast.unparse(node.func)
        if called in CALLS:
            yield f"calls {called}"
        if called.endswith(("import_module", "run_path", "run_module", "exec_module")):
            yield f"calls {called}"
        if called in ("torch.load", "AutoModel.from_pretrained") and given.get("weights_only") != "True":
            yield f"{called} without weights_only"
        if (
            called.startswith("Auto")
            and called.endswith((".from_pretrained", ".from_config"))
            and given.get("trust_remote_code") != "False"
        ):
            yield f"{called} may run code of the folder"
        if called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
            yield f"{called} without allow_pickle=False"
        if called in ("yaml.load", "yaml.load_all") and given.get("Loader") != "_Loader":
            yield f"{called} without our loader"
        if called in ("yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen", "pd.read_pickle", "pandas.read_pickle", "torch.save"):
            yield f"calls {called}"
        if called.endswith((".to_pickle", ".extractall", ".unpack_archive")) or given.get("shell") == "True":
            yield f"calls {called}"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval(x)",
        "importlib.import_module(x)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p)",
        "np.load(p, allow_pickle=True)",
        "yaml.load(t, Loader=yaml.Loader)",
        "subprocess.run(x, shell=True)",
        "archive.extractall(folder)",
        "AutoModel.from_pretrained(p, weights_only=True)",
        "AutoTokenizer.from_pretrained(p, trust_remote_code=True)",
        "frame.to_pickle(p)",
    ],
)
def test_the_check_sees(source: str) -> None:
    assert list(offences(source))


def test_no_pickle_and_no_code_from_files(root: Path) -> None:
    found = {f"{path.relative_to(root)} {what}" for path in (root / "cm2pyro").rglob("*.py") for what in offences(path.read_text())}
    # They start this Python on scripts of ours, so that HDF5 and Arrow can crash apart.
    expected = {f"cm2pyro/{room}.py imports subprocess" for room in ("data/parquet", "diagnostics/comparison")}
    expected |= {f"cm2pyro/{room}.py calls importlib.import_module" for room in ("__init__", "cli/__init__")}  # names of our own
    expected.add("cm2pyro/cli/prepare.py calls import_module")
    expected.add("cm2pyro/foreign.py calls importlib.import_module")  # what the user's own config names
    assert found == expected


def test_the_loader_of_configs_is_a_safe_one() -> None:
    import yaml

    from cm2pyro import config_file

    assert issubclass(config_file._Loader, yaml.SafeLoader)
    assert not any("python" in str(tag) for tag in config_file._Loader.yaml_constructors)
