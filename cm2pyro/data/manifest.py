"""The manifest: one row a sample, one column a modality, read as text."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cm2pyro.data.csv_file import check_names
from cm2pyro.data.formulas import is_formula
from cm2pyro.data.splits import SPLITS
from cm2pyro.data.table import as_text, read_table, text_frame
from cm2pyro.errors import DataError
from cm2pyro.registry import nearest, one_line

PREDICT_ONLY = "enough to predict, not to fit"  # what ends a line on what only a fit needs
_SHOWN = 60  # characters of a cell that a message repeats


@dataclass(frozen=True)
class Manifest:
    """A checked manifest.

    Attributes:
        frame: one row a sample, every column text, an empty cell is ''. Its index is the row in the file as a
            spreadsheet counts, the header being row 1; `take` keeps it, so that messages name the row of the file.
        name: the file, for messages. root: the folder that paths in cells and tables in a config are relative to.
        tables: where tables lie that are not in `root` under their own name, those of a shard.
    """

    frame: pd.DataFrame
    name: str
    root: Path
    tables: Mapping[str, Path] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def ids(self) -> list[str]:
        """The sample_id of every row."""
        return self.frame["sample_id"].tolist()

    @property
    def subjects(self) -> list[str]:
        """Subject of every sample; the sample itself where the manifest has no subject_id."""
        return self.frame["subject_id" if "subject_id" in self.frame else "sample_id"].tolist()

    def where(self, row: int) -> str:
        """How the row at a position is named in messages."""
        return f"{self.name}, row {self.frame.index[row]} (sample_id {one_line(self.frame['sample_id'].iloc[row], _SHOWN)})"

    def rows(self, split: str) -> list[int]:
        """Positions of the rows of a split; none if there is no split column."""
        if "split" not in self.frame:
            return []
        return [i for i, value in enumerate(self.frame["split"]) if value == split]

    def take(self, rows: Iterable[int]) -> "Manifest":
        """A manifest of some of the rows."""
        return replace(self, frame=self.frame.iloc[list(rows)])

    def require(self, columns: Iterable[str], why: str) -> None:
        """Raises DataError if one of the columns is absent."""
        for column in columns:
            if column not in self.frame:
                if column in (str(name).strip() for name in self.frame):
                    remedy = "remove the spaces around its name"
                elif column == "split":
                    remedy = "write train, val or test in each row, train alone if there is no division yet"
                else:
                    remedy = nearest(column, self.frame.columns)
                raise DataError(f"{self.name}: column '{column}' is missing, and {why}; {remedy}")

    def file(self, row: int, column: str) -> Path:
        """The file that a cell names. Raises DataError: outside the manifest's folder, not there, not a readable file."""
        cell = self.frame[column].iloc[row]
        return inside(self.root, cell, f"{self.where(row)}, column '{column}'", "correct the path, or leave the cell empty")

    def table(self, name: str, modality: str) -> Path:
        """The file of a table that the config names. Raises DataError, as `file` does."""
        known = self.tables.get(name)
        return inside(self.root if known is None else known.parent, name if known is None else known.name, f"modality {modality}, table")


def inside(root: Path, name: str, where: str, remedy: str = "correct the path") -> Path:
    """`root / name`, refused when it leaves `root` (links followed) or is not a file that can be opened."""
    shown = one_line(name)
    try:
        path = (root / name).resolve()
        if Path(name).is_absolute() or not path.is_relative_to(root.resolve()):
            raise DataError(
                f"{where}: path '{shown}' leaves the manifest's folder; expected a relative path inside it; move the file there"
            )
        if path.is_dir():
            raise DataError(f"{where}: '{shown}' is a folder and not a file; expected one file in {root}; {remedy}")
        if not path.is_file():
            raise DataError(f"{where}: file '{shown}' is not there or not a file; expected one in {root}; {remedy}")
        with path.open("rb"):
            pass
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links
        reason = one_line(getattr(error, "strerror", None) or error)
        raise DataError(f"{where}: file '{shown}' cannot be read ({reason}); correct the path or its permissions") from error
    return path


def strange_ids(ids: Iterable[str], manifest: Manifest, where: str) -> list[str]:
    """What to say of a table whose ids are hardly meant to be others than the manifest's: none is the same, or zeros in front are lost."""
    found, known = set(ids), set(manifest.ids)
    bare = {sample.lstrip("0"): sample for sample in known - found}
    lost = sorted(sample for sample in found - known if sample.lstrip("0") in bare)
    if lost:
        here, there = (one_line(sample, _SHOWN) for sample in (lost[0], bare[lost[0].lstrip("0")]))
        return [
            f"{where}: {len(lost):,} sample_ids differ from those of {manifest.name} by zeros in front alone, "
            f"first '{here}' here, '{there}' there; they count as missing"
        ]
    if found and known and not found & known:
        here, there = (one_line(min(names), _SHOWN) for names in (found, known))
        return [f"{where}: none of its sample_ids is in {manifest.name}, '{here}' here, '{there}' there; every row counts as missing"]
    return []


def own_lines(table: pd.DataFrame, manifest: Manifest, where: str) -> tuple[pd.DataFrame, NDArray[np.int64], list[str]]:
    """Lines of a table that belong to the manifest, with the row of each; and what to say of their ids, see `strange_ids`.

    Lines of other samples are legal: one table can serve several manifests.
    """
    remarks = strange_ids(table["sample_id"].unique(), manifest, where)
    rows = table["sample_id"].map({sample: i for i, sample in enumerate(manifest.ids)})
    known = rows.notna()
    return table[known], rows[known].to_numpy().astype(np.int64), remarks


def read_manifest(source: str | Path | pd.DataFrame) -> Manifest:
    """Read and check a manifest.

    Args:
        source: a CSV or Parquet file, or a DataFrame (paths in it are relative to the working folder).

    Raises:
        DataError: not readable, no rows, no sample_id, an empty or repeated sample_id, an unknown split, a subject in
            two splits.
    """
    if isinstance(source, pd.DataFrame):
        name, root = "the data frame", Path.cwd()
        if source.index.name == "sample_id" and "sample_id" not in source:
            source = source.reset_index()
        check_names(source.columns, name)
        try:
            frame = text_frame({str(column): as_text(source[column]) for column in source}, range(2, len(source) + 2))
        except UnicodeDecodeError as error:
            raise DataError(f"{name}: holds bytes that are not UTF-8 text; expected text; decode them") from error
    else:
        path = Path(source)
        if (path / "index.json").is_file():
            raise DataError(
                f"{path}: is a folder of shards, which fit, predict and evaluate stream; expected a manifest; name the one it was made from"
            )
        frame, name, root = read_table(path), str(path), path.parent
    manifest = Manifest(frame, name, root)
    manifest.require(["sample_id"], "every row needs one")
    if frame.empty:
        raise DataError(f"{name}: no rows; expected one row a sample; add them")
    _check_ids(manifest)
    _check_splits(manifest)
    return manifest


def _check_ids(manifest: Manifest) -> None:
    """Every sample_id there once, and no id that a spreadsheet would run."""
    frame, name = manifest.frame, manifest.name
    for row in _first(frame["sample_id"].str.strip() == ""):
        raise DataError(f"{name}, row {frame.index[row]}: sample_id is empty; expected one; give every row its own")
    for row in _first(frame["sample_id"].duplicated()):
        first = frame.index[frame["sample_id"].tolist().index(frame["sample_id"].iloc[row])]
        raise DataError(f"{manifest.where(row)}: sample_id stands already in row {first}; expected every one once; give every row its own")
    for column in ("sample_id", "subject_id"):
        for row in _first(frame[column].map(is_formula)) if column in frame else ():
            raise DataError(
                f"{manifest.where(row)}: {column} begins as a formula does, and spreadsheets that open predictions.csv would run it; "
                "expected one that begins with none of = + - @, or a number; rename it"
            )


def _check_splits(manifest: Manifest) -> None:
    """Known splits, a subject in every row, and each subject in one split."""
    frame = manifest.frame
    if "split" in frame:
        for row in _first(~frame["split"].isin(SPLITS)):
            found = one_line(frame["split"].iloc[row], _SHOWN)
            raise DataError(f"{manifest.where(row)}: split is '{found}'; expected one of {', '.join(SPLITS)}; correct it")
    if "subject_id" not in frame:
        return
    # Spaces around an id must not hide that a subject is in two splits.
    subjects = frame["subject_id"].str.strip()
    for row in _first(subjects == ""):
        raise DataError(
            f"{manifest.where(row)}: subject_id is empty; expected the subject, or the sample_id if every sample is one; fill it"
        )
    if "split" in frame:
        first_split = frame["split"].groupby(subjects).transform("first")
        for row in _first(frame["split"] != first_split):
            subject, here, there = one_line(subjects.iloc[row], _SHOWN), frame["split"].iloc[row], first_split.iloc[row]
            raise DataError(
                f"{manifest.where(row)}: subject '{subject}' is in splits {there} and {here}; expected one split a subject; "
                "assign splits by subject"
            )


def _first(wrong: pd.Series) -> NDArray[np.int64]:
    """Position of the first True, if there is one."""
    return wrong.to_numpy(dtype=bool).nonzero()[0][:1]
