"""The manifest: one row a sample, one column a modality, read as text."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cm2pyro.errors import DataError
from cm2pyro.registry import nearest

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Manifest:
    """A checked manifest.

    Attributes:
        frame: one row a sample, every column text, an empty cell is ''. name: the file, for messages.
        root: the folder that paths in cells and tables in a config are relative to.
    """

    frame: pd.DataFrame
    name: str
    root: Path

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def ids(self) -> list[str]:
        return self.frame["sample_id"].tolist()

    @property
    def subjects(self) -> list[str]:
        """Subject of every sample; the sample itself where the manifest has no subject_id."""
        return self.frame["subject_id" if "subject_id" in self.frame else "sample_id"].tolist()

    def where(self, row: int) -> str:
        """How a row is named in messages; rows count as a spreadsheet shows them, the header being row 1."""
        return f"{self.name}, row {row + 2} (sample_id {self.frame['sample_id'].iloc[row]})"

    def rows(self, split: str) -> list[int]:
        """Positions of the rows of a split; none if there is no split column."""
        if "split" not in self.frame:
            return []
        return [i for i, value in enumerate(self.frame["split"]) if value == split]

    def take(self, rows: Iterable[int]) -> "Manifest":
        """A manifest of some of the rows."""
        return Manifest(self.frame.iloc[list(rows)].reset_index(drop=True), self.name, self.root)

    def require(self, columns: Iterable[str], why: str) -> None:
        """Raises DataError if one of the columns is absent."""
        for column in columns:
            if column not in self.frame:
                raise DataError(f"{self.name}: column '{column}' is missing, and {why}; {nearest(column, self.frame.columns)}")

    def file(self, row: int, column: str) -> Path:
        """The file that a cell names. Raises DataError: outside the manifest's folder, not there, not a readable file."""
        cell = self.frame[column].iloc[row]
        return inside(self.root, cell, f"{self.where(row)}, column '{column}'")


def inside(root: Path, name: str, where: str) -> Path:
    """`root / name`, refused when it leaves `root` (links followed) or is not a file that can be opened."""
    try:
        path = (root / name).resolve()
        leaves = Path(name).is_absolute() or not path.is_relative_to(root.resolve())
        if leaves:
            raise DataError(f"{where}: path '{name}' leaves the manifest's folder; expected a relative path inside it; move the file there")
        if not path.is_file():
            raise DataError(f"{where}: file '{name}' is not there or not a file; expected one in {root}; correct the path")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{where}: file '{name[:80]}' cannot be read ({reason}); correct the path or its permissions") from error
    return path


def read_table(path: Path, where: str = "", numbers: bool = False) -> pd.DataFrame:
    """A CSV or Parquet file with every column as text; an empty cell is ''. Raises DataError, one line.

    With `numbers`, numeric columns of a Parquet file other than sample_id stay numeric: long tables have millions of rows.
    """
    where = where or str(path)
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
            if any(not isinstance(column, str) for column in frame.columns):
                raise DataError(f"{where}: column names are not text; write the table with named columns")
            keep = {c for c in frame.columns if numbers and c != "sample_id" and pd.api.types.is_numeric_dtype(frame[c])}
            return frame.assign(**{column: _as_text(frame[column]) for column in frame.columns if column not in keep})
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror or error}); name a CSV or Parquet file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{where}: the file is empty; expected a header and rows") from error
    except (pd.errors.ParserError, ValueError) as error:  # pyarrow's errors are ValueErrors
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise DataError(f"{where}: cannot be parsed ({reason}); expected a CSV or Parquet table") from error


def _as_text(column: pd.Series) -> pd.Series:
    if isinstance(column.dtype, pd.StringDtype):
        return column.fillna("").astype(object)
    text = column.astype(object).where(column.notna(), "")
    return text.map(lambda value: value if isinstance(value, str) else _plain(value)).astype(object)


def _plain(value: object) -> str:
    # Whole floats lose their '.0', which pandas adds to integer columns with gaps; arrays become JSON lists.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if hasattr(value, "tolist"):
        value = value.tolist()
    return str(value)


def read_manifest(source: str | Path | pd.DataFrame) -> Manifest:
    """Read and check a manifest.

    Args:
        source: a CSV or Parquet file, or a DataFrame (paths in it are relative to the working folder).

    Raises:
        DataError: not readable, no rows, no sample_id, an empty or repeated sample_id, an unknown split, a subject in
            two splits.
    """
    if isinstance(source, pd.DataFrame):
        frame, name, root = source.reset_index(drop=True).apply(_as_text), "the data frame", Path.cwd()
    else:
        path = Path(source)
        frame, name, root = read_table(path), str(path), path.parent
    manifest = Manifest(frame, name, root)
    duplicated = frame.columns[frame.columns.duplicated()]
    if len(duplicated):
        raise DataError(f"{name}: column '{duplicated[0]}' stands twice; rename one")
    manifest.require(["sample_id"], "every row needs one")
    if frame.empty:
        raise DataError(f"{name}: no rows; expected one row a sample")
    for row in (frame["sample_id"].str.strip() == "").to_numpy().nonzero()[0][:1]:
        raise DataError(f"{name}, row {row + 2}: sample_id is empty; give every row its own")
    for row in frame["sample_id"].duplicated().to_numpy().nonzero()[0][:1]:
        first = frame["sample_id"].tolist().index(frame["sample_id"].iloc[row])
        raise DataError(f"{manifest.where(row)}: sample_id stands already in row {first + 2}; give every row its own")
    if "split" in frame:
        for row in (~frame["split"].isin(SPLITS)).to_numpy().nonzero()[0][:1]:
            found = frame["split"].iloc[row]
            raise DataError(f"{manifest.where(row)}: split is '{found}'; expected one of {', '.join(SPLITS)}")
    if "subject_id" in frame:
        for row in (frame["subject_id"].str.strip() == "").to_numpy().nonzero()[0][:1]:
            raise DataError(f"{manifest.where(row)}: subject_id is empty; give the subject, or the sample_id if every sample is one")
        if "split" in frame:
            first_split = frame.groupby("subject_id")["split"].transform("first")
            for row in (frame["split"] != first_split).to_numpy().nonzero()[0][:1]:
                subject, here, there = frame["subject_id"].iloc[row], frame["split"].iloc[row], first_split.iloc[row]
                raise DataError(
                    f"{manifest.where(row)}: subject '{subject}' is in splits {there} and {here}; expected one split a subject; "
                    "assign splits by subject"
                )
    return manifest
