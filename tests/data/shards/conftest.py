"""A small data set of every kind, as a manifest with its tables and files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cm2pyro.data.shards.index import Shards
from cm2pyro.data.shards.write import write_shards
from tests.data.shards.cases import TABLES, N


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """manifest.csv of 120 rows in mixed splits, a table whose lines are shuffled, a CSV table, pictures, notes."""
    place = tmp_path_factory.mktemp("clinic")
    random = np.random.default_rng(0)
    ids = [f"s{i:03d}" for i in range(N)]
    label = random.integers(0, 2, N)
    split = random.permutation(["train"] * 90 + ["val"] * 15 + ["test"] * 15)
    vector = [str((random.normal(size=2) + y).tolist()) if random.random() < 0.8 else "" for y in label]
    films = [f"films/{i}.png" if random.random() < 0.6 else "" for i in ids]
    (place / "films").mkdir()
    for j, film in enumerate(films):
        if film:
            Image.fromarray(random.integers(0, 256, (18, 20), dtype=np.uint8)).save(place / film)
        if film and j % 3 == 0:
            films[j] = films[j - 1] or film  # some share a file
    words = ["fever", "cough", "stable", "acute", "left", "right"]
    notes = [" ".join(random.choice(words, 5)) + (", improved" if j % 7 else "\nsecond line") for j in range(N)]
    columns = {"sample_id": ids, "subject_id": [f"p{i // 2}" for i in range(N)], "split": split, "label": label}
    frame = pd.DataFrame(columns | {"vector": vector, "film": films, "note": notes})
    frame["split"] = frame.groupby("subject_id")["split"].transform("first")
    frame.to_csv(place / "manifest.csv", index=False)
    lines = 700
    events = pd.DataFrame(
        {
            "sample_id": random.choice([*ids, "elsewhere"], lines),
            "hours": random.uniform(0, 6, lines),
            "variable": random.choice(["hr", "map", "rare"], lines, p=[0.6, 0.39, 0.01]),
            "value": random.normal(80, 12, lines),
        }
    )
    events.to_parquet(place / "series.parquet", index=False)
    static = pd.DataFrame(
        {"sample_id": random.permutation(ids), "age": random.integers(20, 90, N), "ward": random.choice(["a", "b", ""], N)}
    )
    static.to_csv(place / "static.csv", index=False)
    return place


@pytest.fixture
def shard(folder: Path, tmp_path: Path) -> Callable[..., Shards]:
    """Makes shards of that many rows."""

    def make(rows: int) -> Shards:
        out = tmp_path / f"shards{rows}"
        write_shards(folder / "manifest.csv", out, TABLES, None, rows, True)
        return Shards.open(out)

    return make
