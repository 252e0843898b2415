"""Peak memory and time per row of fits, predictions and evaluations that stream shards.

    python benchmarks/streaming.py [--rows 10000 1000000] [--encoder lstm] [--out results.json]

Simulated time series, 8 bins of 3 variables, and a vector that 30% of the rows lack; half as many rows again to predict and to
evaluate, at most 50,000. Shards are written straight from NumPy. Every command runs in a process of its own. Peak memory is the
high-water mark of its resident set. Time per row is that of the epochs' batches with their steps (a small data set is passed over
several times, up to `--steps` rows), and of the whole of predict and evaluate, once the run is loaded. `cpu` is the time that the
process was given, all threads together, which other load on the machine changes less than the time that passed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BINS, VARIABLES, SHARD = 8, 3, 2048
_HELD = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--encoder", default="lstm", choices=["lstm", "summary"])
    parser.add_argument("--commands", nargs="+", default=["fit", "predict", "evaluate"])
    parser.add_argument("--steps", type=int, default=0, help="rows that every fit passes over at least; by default 100,000")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--stage", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stage:
        stage(*asked.stage)
        return
    results: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        for n in asked.rows:
            folder = Path(place) / str(n)
            settings = {"rows": n, "folder": str(folder), "encoder": asked.encoder, "epochs": max(1, (asked.steps or 100_000) // n)}
            for command in ("make", *asked.commands):
                shown = json.dumps(settings)
                done = subprocess.run([sys.executable, __file__, "--stage", command, shown], capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(done.stderr)
                results.setdefault(command, {})[str(n)] = found = json.loads(done.stdout.splitlines()[-1])
                print(f"{command:9} {n:>9,} rows  {'  '.join(f'{key} {value:,.6g}' for key, value in found.items())}", flush=True)
    for command in asked.commands:
        small, large = results[command][str(min(asked.rows))], results[command][str(max(asked.rows))]
        print(
            f"{command:9} large / small: "
            + ", ".join(f"{key} {large[key] / small[key]:.3f}" for key in ("peak_mib", "us_per_row", "cpu_us_per_row"))
        )
    if asked.out is not None:
        asked.out.write_text(json.dumps(results, indent=2) + "\n")


def stage(command: str, settings: str) -> None:
    """One command in this process; its figures as JSON on the last line."""
    import torch

    torch.set_num_threads(1)
    asked = json.loads(settings)
    folder, n = Path(asked["folder"]), asked["rows"]
    started = time.perf_counter()
    found = {"make": make, "fit": fit, "predict": predict, "evaluate": evaluate}[command](asked, folder, n)
    print(json.dumps(found | {"seconds": time.perf_counter() - started, "peak_mib": peak()}))


def peak() -> float:
    """MiB, of this process since it began."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def config(encoder: str, epochs: int) -> dict:
    return {
        "modalities": {
            "series": {"kind": "timeseries", "encoder": encoder, "table": "series.parquet", "hours": BINS, "bin_hours": 1, "hidden": 16},
            "vector": {"kind": "embedding", "encoder": "mlp", "columns": ["v0", "v1"], "hidden": 16},
        },
        "latent": {"dim": 2},
        "prior": {"components": 2},
        "fusion": {"kind": "mlp", "hidden": 8},
        "fit": {"epochs": epochs, "patience": epochs, "batch_size": 1024, "lr": 1e-3, "seed": 0},
    }


def make(asked: dict, folder: Path, n: int) -> dict[str, float]:
    """Training rows n, validation 2,000, test n / 2 up to 50,000."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cm2pyro.data.shards.index import FORMAT, INDEX, MANIFEST, Index, Shard, Stored, checksum

    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    shards, number = [], 0
    for split, rows in (("train", n), ("val", 2000), ("test", min(n // 2, _HELD))):
        for i, start in enumerate(range(0, rows, SHARD)):
            size = min(SHARD, rows - start)
            place = folder / f"{split}-{i:05d}"
            place.mkdir()
            ids = np.array([f"s{j:08d}" for j in range(number, number + size)])
            number += size
            z = random.normal(size=size)
            values = z[:, None, None] + random.normal(size=(size, BINS, VARIABLES))
            vector = np.where(random.random((size, 1)) < 0.3, "", (z[:, None] + random.normal(size=(size, 2))).astype(str))
            label = (random.random(size) < 1 / (1 + np.exp(-1.5 * z))).astype(int).astype(str)
            cells = {
                "sample_id": ids,
                "subject_id": ids,
                "split": np.full(size, split),
                "label": label,
                "v0": vector[:, 0],
                "v1": vector[:, 1],
            }
            pq.write_table(pa.table(cells), place / MANIFEST)
            series = {"sample_id": np.repeat(ids, BINS), "hours": np.tile(np.arange(BINS) + 0.5, size)}
            series |= {f"x{v}": values[:, :, v].ravel() for v in range(VARIABLES)}
            pq.write_table(pa.table(series), place / "table_0.parquet")
            files = {path.name: Stored(bytes=path.stat().st_size, sha256=checksum(path)) for path in place.iterdir()}
            shards.append(Shard(name=place.name, split=split, rows=size, files=files))
    names = ["sample_id", "subject_id", "split", "label", "v0", "v1"]
    tables = {"series.parquet": "table_0.parquet"}
    index = Index(format=FORMAT, manifest="none", rows=number, subjects=number, columns=names, tables=tables, packed=[], shards=shards)
    (folder / INDEX).write_text(index.model_dump_json())
    return {"rows": number}


def fit(asked: dict, folder: Path, n: int) -> dict[str, float]:
    from collections.abc import Iterator

    from cm2pyro.api import CM2
    from cm2pyro.data.shards import dataset

    spent: list[float] = []
    worked: list[float] = []
    batches = dataset.StreamedDataset.batches

    def timed(*given: object, **named: object) -> Iterator[object]:
        """Batches with what is done with them between one and the next."""
        started, cpu = time.perf_counter(), time.process_time()
        yield from batches(*given, **named)
        spent.append(time.perf_counter() - started)
        worked.append(time.process_time() - cpu)

    dataset.StreamedDataset.batches = timed
    started = time.perf_counter()
    CM2.from_config(config(asked["encoder"], asked["epochs"])).fit(folder, folder.parent / f"run-{n}", device="cpu", overwrite=True)
    whole = time.perf_counter() - started
    rows = asked["epochs"] * n
    return {
        "us_per_row": 1e6 * sum(spent) / rows,
        "cpu_us_per_row": 1e6 * sum(worked) / rows,
        "rest_seconds": whole - sum(spent),
        "epochs": asked["epochs"],
    }


def predict(asked: dict, folder: Path, n: int) -> dict[str, float]:
    from cm2pyro.api import CM2

    model = CM2.load(folder.parent / f"run-{n}")
    started, cpu = time.perf_counter(), time.process_time()
    rows = model.predict_to(folder, folder.parent / f"predictions-{n}.csv", split="test")
    return per_row(started, cpu, rows) | {"rows": rows}


def per_row(started: float, cpu: float, rows: int) -> dict[str, float]:
    return {"us_per_row": 1e6 * (time.perf_counter() - started) / rows, "cpu_us_per_row": 1e6 * (time.process_time() - cpu) / rows}


def evaluate(asked: dict, folder: Path, n: int) -> dict[str, float]:
    from cm2pyro.api import CM2

    model = CM2.load(folder.parent / f"run-{n}")
    started, cpu = time.perf_counter(), time.process_time()
    metrics = model.evaluate(folder, bootstrap=0).metrics
    return per_row(started, cpu, metrics["n"]) | {"rows": metrics["n"], "auroc": metrics["auroc"]["value"]}


if __name__ == "__main__":
    main()
