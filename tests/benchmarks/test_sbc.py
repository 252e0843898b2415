"""Simulation-based calibration end to end: ten small simulations, and the table of them."""

import json
from pathlib import Path

import pyro
import pytest
import torch
from click.testing import CliRunner

from benchmarks import sbc
from cm2pyro.inference.mcmc import Potential

pytestmark = pytest.mark.slow


def test_ten_simulations_and_their_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sbc, "WARMUP", 10)
    monkeypatch.setattr(sbc, "DRAWS", 8)
    monkeypatch.setattr(sbc, "THIN", 4)
    monkeypatch.setattr(sbc, "STEPS", 20)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        blank = torch.zeros(sbc.ROWS, 2, 1)
        potential = Potential(sbc.STRUCTURE, sbc.priors("apart"), blank, torch.ones(sbc.ROWS, 2, dtype=torch.bool))
        records = [{"locs": "apart", **sbc.simulate(seed, potential, list(sbc.METHODS))} for seed in range(10)]
    finally:
        torch.set_default_dtype(before)
        pyro.clear_param_store()
    for record in records:
        assert record["truth"]["mu_11"] <= record["truth"]["mu_12"]
        assert -1 < record["truth"]["tau"] < 1
        for method in sbc.METHODS:
            ranks = record[method]["ranks"]
            assert set(ranks) == set(record["truth"])
            assert all(0 <= rank <= 8 // sbc.THIN for rank in ranks.values())
            low, high = record[method]["tau"]
            assert record[method]["covered"] == (low <= record["truth"]["tau"] <= high)
    path = tmp_path / "sbc.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    result = CliRunner().invoke(sbc.main, ["table", str(path), "--figure", str(tmp_path / "sbc.png")])
    assert result.exit_code == 0, result.output
    assert "NUTS: 10 simulations" in result.output
    assert "divergent transitions of NUTS:" in result.output
    assert all(f"| {name} |" in result.output for name in records[0]["truth"])
    assert (tmp_path / "sbc.png").is_file()


def test_simulations_of_two_priors_do_not_mix(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for seed, (path, locs) in enumerate(zip(paths, sbc.LOCS, strict=True)):
        path.write_text(json.dumps({"locs": locs, "seed": seed, "truth": {}}) + "\n")
    result = CliRunner().invoke(sbc.main, ["table", *map(str, paths)])
    assert result.exit_code == 2
    assert "apart and overlapping" in result.output
    result = CliRunner().invoke(sbc.main, ["run", "--out", str(paths[0]), "--locs", "overlapping"])
    assert result.exit_code == 2
    assert "name another file" in result.output
