"""Mutated and generated files through every reader: each is read, or refused in one line. Anything else is a fault.

    python benchmarks/fuzz.py --cases 10000 --seed 0 --keep faults

Every case has a number; `--only N` runs that one alone. A fault prints its number and its traceback's last line, and the input is kept.
"""

import argparse
import faulthandler
import json
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tests.hostile.world as world

PIECES = [
    *(bytes([c]) for c in b"\0\xff\r\n,\"';\t=/[]{}~#|>%@`"),
    *b"nan NaN inf -inf 1e999 -1 0 1e-400 0x10 1_0 null true &a *a <<: ?: -: sample_id hours label PAR1 2150-02-30 <script> ../".split(),
    *(b"", b"\xef\xbb\xbf", b"\r\n", b'""', b"\x1b[2J", b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"\xe2\x80\xae", b"\xc2\xa0"),
    *(b"!!python/name:os.system ", b"? ", b"- ", b": ", b"\x89PNG", b"\x93NUMPY", b"[" * 60, b"9" * 400, b"1" * 5000),
]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """A few small changes: bytes, pieces, lines and stretches flipped, put in, left out, doubled, moved."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at, size = rng.randrange(len(made) + 1), rng.choice((1, 1, 2, 4, 16, 64))
        what = rng.randrange(8)
        if what == 0 and made:
            made[at % len(made)] = rng.randrange(256)
        elif what == 1 and made:
            made[at % len(made)] ^= 1 << rng.randrange(8)
        elif what == 2:
            made[at:at] = rng.choice(PIECES)
        elif what == 3:
            del made[at : at + size]
        elif what == 4:
            made[at : at + size] = rng.choice(PIECES)
        elif what == 5:
            made[at:at] = made[at : at + size]
        elif what == 6:
            lines = bytes(made).split(b"\n")
            i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[i], lines[j] = lines[j], rng.choice((lines[i], lines[j], b""))
            made = bytearray(b"\n".join(lines))
        else:
            made = made[:at]
    return bytes(made)


def generated(rng: random.Random) -> bytes:
    """Pieces and random bytes, as they fall."""
    return b"".join(rng.choice((rng.choice(PIECES), rng.randbytes(3), b"a", b"1", b",", b"\n")) for _ in range(rng.randrange(40)))


class Targets:
    """The readers, each with the file that it reads in a good folder and how it is called there."""

    def __init__(self, folder: Path, run: bool) -> None:
        from cm2pyro.api import CM2
        from cm2pyro.config import Config
        from cm2pyro.data.check import describe
        from cm2pyro.data.manifest import read_manifest
        from cm2pyro.data.physionet2012_records import read_outcomes, read_records
        from cm2pyro.data.table import read_table
        from cm2pyro.diagnostics import comparison
        from cm2pyro.encoders import check_encoders
        from cm2pyro.models import check_model

        def configured() -> None:
            config = Config.from_file(folder / "config.yaml")
            check_encoders(config)
            check_model(config)

        whole = Config.from_file(folder / "config.yaml")
        views = check_encoders(whole)

        def checked(*names: str) -> Callable[[], object]:
            part = whole.model_copy(update={"modalities": {name: whole.modalities[name] for name in names}})
            return lambda: describe(read_manifest(folder / "manifest.csv"), part, views)

        self.calls: dict[str, tuple[str, Callable[[], object]]] = {
            "manifest": ("manifest.csv", checked("static")),
            "manifest, every modality": ("manifest.csv", checked(*whole.modalities)),
            "manifest as Parquet": ("manifest.parquet", lambda: read_manifest(folder / "manifest.parquet")),
            "config": ("config.yaml", configured),
            "long series": ("p01.csv", checked("ehr")),
            "wide series": ("p00.csv", checked("ehr")),
            "series table": ("gases.csv", checked("gases")),
            "series table as Parquet": ("labs.parquet", checked("labs")),
            "table as Parquet": ("labs.parquet", lambda: read_table(folder / "labs.parquet")),
            "picture": ("p00.png", checked("image")),
            "picture, JPEG": ("p01.png", checked("image")),
            "picture, TIFF": ("p02.png", checked("image")),
            "note": ("p01.txt", checked("note")),
            "vector": ("p00.npy", checked("vector")),
            "record": ("records/132539.txt", lambda: read_records(folder / "records")),
            "archive": ("records.tar.gz", lambda: read_records(folder / "records.tar.gz")),
            "archive, plain": ("records.tar", lambda: read_records(folder / "records.tar")),
            "outcomes": ("outcomes.txt", lambda: read_outcomes(folder / "outcomes.txt")),
        }
        if run:
            comparison.SECONDS = 10
            for name in (
                "config.yaml",
                "preprocessing.json",
                "holdout.json",
                "metrics.jsonl",
                "checkpoints/best.safetensors",
                "reference.safetensors",
            ):
                self.calls[f"run, {name}"] = (f"run/{name}", lambda: CM2.load(folder / "run"))
            self.calls["run, posterior.nc"] = ("run/posterior.nc", lambda: comparison.read_scores(folder / "run" / "posterior.nc"))


def prepare(folder: Path, run: bool) -> None:
    """The good folder of the tests, and a few formats more."""
    import tarfile

    import pandas as pd
    from PIL import Image

    from cm2pyro.api import CM2

    world.build(folder)
    pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False).to_parquet(folder / "manifest.parquet", index=False)
    for name, kind in (("p01", "JPEG"), ("p02", "TIFF")):
        Image.open(folder / f"{name}.png").convert("L").save(folder / f"{name}.png", kind)
    for name, mode in (("records.tar.gz", "w:gz"), ("records.tar", "w")):
        with tarfile.open(folder / name, mode) as archive:  # type: ignore[call-overload]
            archive.add(folder / "records", "set-a")
    if run:
        model = CM2.from_config(folder / "config.yaml").fit(folder / "manifest.csv", out=folder / "run", device="cpu")
        model.write_posterior(model.posterior_groups(folder / "manifest.csv"), folder / "run")


def outcome_of(call: Callable[[], object], seconds: float) -> tuple[str, str]:
    """read, refused or FAULT; and what the fault is, empty where there is none."""
    from cm2pyro.errors import CM2Error

    start = time.process_time()
    faulthandler.dump_traceback_later(20 * seconds, exit=True)  # a loop outside Python
    outcome, fault = "read", ""
    try:
        call()
    except KeyboardInterrupt:
        raise
    except CM2Error as error:
        outcome = "refused"
        if "\n" in str(error) or len(str(error)) > 2000:
            fault = f"a refusal of {len(str(error))} characters or of several lines: {str(error)[:200]!r}"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in where if "cm2pyro" in frame.filename]
        fault = f"{type(error).__name__}: {str(error)[:200]!r} at {(ours or where)[-1]}"
    if time.process_time() - start > seconds:
        fault = f"{time.process_time() - start:.0f} s of a processor"
    return "FAULT" if fault else outcome, fault


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this case alone")
    parser.add_argument("--reader", help="only readers whose name holds this")
    parser.add_argument("--no-run", action="store_true", help="leave out run folders, whose loading takes longest")
    parser.add_argument("--keep", type=Path, default=Path("faults"), help="where inputs that make a fault are kept")
    parser.add_argument("--seconds", type=float, default=30, help="a case that takes longer is a fault")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    faulthandler.enable()
    outcomes: Counter[tuple[str, str]] = Counter()
    faults = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder, not arguments.no_run)
        targets = {name: call for name, call in Targets(folder, not arguments.no_run).calls.items() if (arguments.reader or "") in name}
        contents = {file: (folder / file).read_bytes() for file, _ in targets.values()}
        for name, (_, call) in targets.items():
            call()  # what is good is read
            outcomes[name, "read"] += 0
        begun = time.monotonic()
        for case in range(arguments.cases) if arguments.only is None else (arguments.only,):
            rng = random.Random(f"{arguments.seed} {case}")
            name = rng.choice(sorted(targets))
            file, call = targets[name]
            content = generated(rng) if rng.random() < 0.1 else mutate(contents[file], rng)
            path = folder / file
            path.write_bytes(content)
            if case % 1000 == 0:
                print(f"case {case}, {time.monotonic() - begun:.0f} s", flush=True)
            outcome, fault = outcome_of(call, arguments.seconds)
            if fault:
                faults += 1
                arguments.keep.mkdir(exist_ok=True)
                (arguments.keep / f"{arguments.seed}-{case}-{Path(file).name}").write_bytes(content)
                print(f"case {case} (--seed {arguments.seed}), {name}: {fault}", flush=True)
            outcomes[name, outcome] += 1
            path.write_bytes(contents[file])
        seconds = time.monotonic() - begun
    totals = Counter({what: sum(n for (_, found), n in outcomes.items() if found == what) for what in ("read", "refused", "FAULT")})
    for name in targets:
        print(f"{name:32}" + "".join(f"{what} {outcomes[name, what]:>5}   " for what in totals))
    print(json.dumps({"cases": sum(totals.values()), **totals, "seed": arguments.seed, "seconds": round(seconds, 1)}))
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
