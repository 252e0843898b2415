"""A small folder in which everything is good, and what spoils one thing in it."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

CONFIG = """\
task: {type: binary, label: label}
modalities:
  ehr: {kind: timeseries, encoder: lstm, hours: 48, hidden: 4}
  labs: {kind: timeseries, encoder: summary, table: labs.parquet, hidden: 4}
  gases: {kind: timeseries, encoder: summary, table: gases.csv, hidden: 4}
  image: {kind: image, encoder: cnn, size: 16, resize: 16, width: 2}
  note: {kind: text, encoder: bag, max_tokens: 16, vocabulary: 300, hidden: 4}
  static: {kind: tabular, encoder: mlp, columns: [age, sex], hidden: 4}
  vector: {kind: embedding, encoder: mlp, hidden: 4}
latent: {dim: 2}
prior: {components: 2}
fusion: {kind: mlp}
fit: {epochs: 1, batch_size: 8, seed: 0}
"""
COLUMNS = ("sample_id", "subject_id", "split", "label", "ehr", "image", "note", "age", "sex", "vector")
ROWS = 12
LONG = "hours,variable,value\n0,hr,80\n1.5,hr,90\n2,rr,20\n"
WIDE = "hours,hr,rr\n0,80,\n5,85,18\n"


def build(folder: Path) -> None:
    """Twelve patients: series as files and as two tables, pictures, notes, columns, vectors; and records of a challenge."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(ROWS):
        name = f"p{i:02d}"
        (folder / f"{name}.csv").write_text(LONG if i % 2 else WIDE)
        Image.fromarray(rng.integers(0, 256, (20, 24), dtype=np.uint8)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"Patient {i} breathes calmly, no fever.")
        np.save(folder / f"{name}.npy", rng.normal(size=3))
        note = f"{name}.txt" if i % 2 else "In bed, calm; eats well."
        split = "train" if i < 8 else "val"
        rows.append([name, f"s{i:02d}", split, str(i % 2), f"{name}.csv", f"{name}.png", note, str(40 + i), "fm"[i % 2], f"{name}.npy"])
    manifest = pd.DataFrame(rows, columns=list(COLUMNS))
    manifest.to_csv(folder / "manifest.csv", index=False, lineterminator="\n")
    long = pd.DataFrame({"sample_id": manifest["sample_id"].repeat(2), "hours": [1.0, 2.0] * ROWS, "variable": ["k", "na"] * ROWS})
    long = long.assign(value=rng.normal(size=len(long)))
    long.to_parquet(folder / "labs.parquet", index=False)
    long.to_csv(folder / "gases.csv", index=False, lineterminator="\n")
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "records").mkdir()
    for record in ("132539", "132540"):
        (folder / "records" / f"{record}.txt").write_text(f"Time,Parameter,Value\n00:00,RecordID,{record}\n00:07,HR,73\n")
    (folder / "outcomes.txt").write_text("RecordID,In-hospital_death\n132539,0\n132540,1\n")


Spoil = Callable[[Path], object]
Change = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class Case:
    """One thing that is wrong.

    Attributes:
        name: of the case. spoil: what makes it wrong, in a folder that `build` made. says: what the one line must hold.
        command: what the user types in that folder. code: the exit code. bomb: runs in a process whose memory is bounded.
    """

    name: str
    spoil: Spoil
    says: tuple[str, ...]
    command: str
    code: int
    bomb: bool = False


CHECK = "data check manifest.csv --config config.yaml"
FIT = "fit config.yaml --data manifest.csv --out fresh"
PREDICT = "predict run --data manifest.csv --out predictions.csv --draws 2"
TAR = "prepare physionet2012 --records records.tar.gz --out prepared --splits train=1"
FOLDER = "prepare physionet2012 --records records --outcomes outcomes.txt --out prepared --splits train=1"


class Corpus:
    """Cases of one subject, with the command and the exit code that most of them have."""

    def __init__(self, subject: str, command: str, code: int, *says: str) -> None:
        self.subject, self.command, self.code, self.says = subject, command, code, says
        self.cases: list[Case] = []

    def add(
        self,
        name: str,
        spoil: Spoil,
        *says: str,
        command: str | None = None,
        code: int | None = None,
        bomb: bool = False,
        anywhere: bool = False,
    ) -> None:
        """anywhere: the line need not hold what the lines of this corpus hold."""
        told = says if anywhere else (*self.says, *says)
        whole = f"{self.subject}: {name}"
        self.cases.append(Case(whole, spoil, told, command or self.command, self.code if code is None else code, bomb))


# --- what spoils -------------------------------------------------------------------------------------------------------


def put(name: str, content: str | bytes) -> Spoil:
    """A file of that content, in place of what was there."""

    def spoil(folder: Path) -> None:
        path = folder / name
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def swap(name: str, old: str | bytes, new: str | bytes) -> Spoil:
    """The first `old` in a file becomes `new`."""
    before, after = (text.encode() if isinstance(text, str) else text for text in (old, new))

    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        assert before in content, f"{name} has no {before!r}"
        (folder / name).write_bytes(content.replace(before, after, 1))

    return spoil


def cut(name: str, keep: float) -> Spoil:
    """A file cut to a share of its length."""

    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(keep * len(content))])

    return spoil


def cell(row: int, column: str, value: object, name: str = "manifest.csv") -> Spoil:
    """A cell of the manifest; rows count from 0."""

    def spoil(folder: Path) -> None:
        frame = pd.read_csv(folder / name, dtype=str, keep_default_na=False)
        frame.loc[row, column] = value
        frame.to_csv(folder / name, index=False, lineterminator="\n")

    return spoil


def frame(change: Change, name: str = "manifest.csv") -> Spoil:
    """The manifest, or another CSV, changed as a table."""

    def spoil(folder: Path) -> None:
        change(pd.read_csv(folder / name, dtype=str, keep_default_na=False)).to_csv(folder / name, index=False, lineterminator="\n")

    return spoil


def parquet(name: str, change: Change) -> Spoil:
    def spoil(folder: Path) -> None:
        change(pd.read_parquet(folder / name)).to_parquet(folder / name, index=False)

    return spoil


def config(old: str, new: str) -> Spoil:
    return swap("config.yaml", old, new)


def doing(*steps: Spoil) -> Spoil:
    def spoil(folder: Path) -> None:
        for step in steps:
            step(folder)

    return spoil


def link(name: str, to: str) -> Spoil:
    """A symbolic link in place of a file."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)

    return spoil


def directory(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return spoil


def pipe(name: str) -> Spoil:
    """A FIFO that nobody writes to: whoever opens it waits for ever."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


def gone(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def outside(folder: Path) -> Path:
    """A file beside the folder, which nothing inside may name."""
    path = folder.parent / f"{folder.name}-secret.csv"
    path.write_text(LONG)
    return path


def edit_json(name: str, change: Callable[[object], object]) -> Spoil:
    """JSON that is read, changed and written back."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        changed = change(content)
        (folder / name).write_text(json.dumps(content if changed is None else changed))

    return spoil
