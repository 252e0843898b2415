"""Chest X-rays of MIMIC-CXR-JPG for the stays of MIMIC-IV: the last frontal view of the first hours of each stay."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from cm2pyro.data.mimic.tables import Table, find_table, numbers
from cm2pyro.data.mimic.windows import inside, windows
from cm2pyro.data.pictures import read_picture
from cm2pyro.errors import DataError
from cm2pyro.registry import one_line

__all__ = ["CHEXPERT", "export", "link"]

# Labels that CheXpert read off the report of a study: 1 present, 0 absent, -1 uncertain, empty not mentioned.
_FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion"),
    *("Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices"),
)
CHEXPERT: tuple[str, ...] = tuple("chexpert_" + name.lower().replace(" ", "_") for name in _FINDINGS)
_JPEG_QUALITY = 95  # of the data set itself
_WORKERS = 4


def link(stays: pd.DataFrame, folder: Path, hours: float, view: str = "AP") -> tuple[pd.DataFrame, dict[str, int]]:
    """The last image of each stay among those taken in its window (see `windows`) whose file is there.

    MIMIC-CXR knows no admissions, so an image belongs to the stay of its subject at the time of the study. Where two images have the same
    time, that of the higher study id and then of the higher DICOM id counts as the last.

    Args:
        stays: see `windows`. folder: holds mimic-cxr-2…-metadata.csv(.gz) and the images as
            `files/p10/p10000032/s50414267/<dicom id>.jpg`, or .dcm; -split.csv and -chexpert.csv may lie beside it.
        hours: length of the window. view: `ViewPosition` of the images that count.

    Returns:
        `sample_id`, `subject_id`, `study_id`, `dicom_id` (text), `hours` since `intime`, `path` of the file (text); `cxr_split` where there
        is a split table (text, '' for an image that it lacks); the columns `CHEXPERT` where there is that table (float, NaN where not
        mentioned). One row for each stay that has an image, in the order of `stays`.
        Counts of images: `read` is the sum of the others, `linked` of which counts those returned, once each even if for two stays.

    Raises:
        DataError: the metadata are not there or damaged, lack a column, or there are several versions of them.
    """
    counts = dict.fromkeys(("read", "other_view", "of_no_stay", "without_time", "outside_window", "file_absent", "earlier", "linked"), 0)
    window = windows(stays, hours).drop(columns="hadm_id")
    metadata = _tables(folder)
    subjects = pa.array(window["subject_id"].unique(), pa.string())
    kept = [pd.DataFrame(columns=["dicom_id", "subject_id", "study_id", "date", "time"], dtype=object)]
    columns = ["dicom_id", "subject_id", "study_id", "viewposition", "studydate", "studytime"]
    for _, block in metadata["metadata"].batches(columns):
        seen = pc.equal(pc.utf8_upper(pc.utf8_trim_whitespace(block["viewposition"])), view.strip().upper())
        ours = pc.and_(seen, pc.is_in(block["subject_id"], subjects))
        counts["read"] += len(block)
        counts["other_view"] += len(block) - seen.true_count
        counts["of_no_stay"] += seen.true_count - ours.true_count
        cells = {name: block[name].filter(ours).to_numpy(zero_copy_only=False) for name in columns if name != "viewposition"}
        kept.append(pd.DataFrame(cells).rename(columns={"studydate": "date", "studytime": "time"}))
    images = pd.concat(kept, ignore_index=True)
    images["time"] = _times(images.pop("date"), images["time"])
    counts["without_time"] = int(images["time"].isna().sum())
    images = images[images["time"].notna()]
    pairs = inside(images.reset_index(names="image").merge(window, on="subject_id"))
    counts["outside_window"] = len(images) - pairs["image"].nunique()
    paths = {i: _file(folder, *ids) for i, *ids in _ids(pairs.drop_duplicates("image"))}
    pairs["path"] = pairs["image"].map(paths)
    counts["file_absent"] = sum(path is None for path in paths.values())
    pairs = pairs[pairs["path"].notna()].sort_values(["time", "study_id", "dicom_id"])
    last = pairs.drop_duplicates("sample_id", keep="last")
    counts["linked"] = last["image"].nunique()
    counts["earlier"] = pairs["image"].nunique() - counts["linked"]
    frame = window[["sample_id"]].merge(last[["sample_id", "subject_id", "study_id", "dicom_id", "hours", "path"]], on="sample_id")
    return _described(frame, metadata), counts


def _tables(folder: Path) -> dict[str, Table]:
    """The table of metadata, and those of the split and of the labels where they are there."""
    pattern = re.compile(r"(mimic-cxr-2[^/]*-(metadata|split|chexpert))\.csv(\.gz)?")
    columns = {
        "metadata": ("dicom_id", "subject_id", "study_id", "viewposition", "studydate", "studytime"),
        "split": ("dicom_id", "split"),
        "chexpert": ("study_id", *(name.lower() for name in _FINDINGS)),
    }
    try:
        names = {match[1]: match[2] for path in folder.iterdir() if (match := pattern.fullmatch(path.name.lower()))}
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error}); name the folder of MIMIC-CXR-JPG") from error
    for kind in columns:
        versions = sorted(name for name in names if names[name] == kind)
        if len(versions) > 1:
            raise DataError(f"{folder}: has both {versions[0]}.csv and {versions[1]}.csv, expected one version; remove the other")
    if "metadata" not in names.values():
        raise DataError(
            f"{folder}: has no file such as mimic-cxr-2.0.0-metadata.csv.gz, expected the folder of MIMIC-CXR-JPG; download it there"
        )
    return {kind: find_table(folder, name, columns[kind]) for name, kind in names.items()}


def _times(dates: pd.Series, times: pd.Series) -> pd.Series:
    """Dates such as 21800506 and times such as 85905.234 (08:59:05.234: leading zeros are dropped); NaT where either is none."""
    number = pd.to_numeric(times, errors="coerce").where(times.str.strip() != "")
    number = number.where(number.between(0, 240_000, inclusive="left"))  # also drops nan and inf
    hour, minute, second = number // 10_000, number // 100 % 100, number % 100
    day = pd.to_datetime(dates.str.strip(), format="%Y%m%d", errors="coerce").astype("datetime64[ns]")
    valid = number.notna() & minute.lt(60) & second.lt(60) & day.notna()
    since = (3600 * hour + 60 * minute + second).where(valid, 0)
    return (day + pd.to_timedelta((since * 1000).round().astype("int64"), unit="ms")).where(valid)


def _ids(images: pd.DataFrame) -> Iterator[tuple[int, str, str, str]]:
    return images[["image", "subject_id", "study_id", "dicom_id"]].itertuples(index=False, name=None)


def _file(folder: Path, subject: str, study: str, dicom: str) -> str | None:
    """The image as the data set names it, a JPEG before a DICOM file; None where neither is there."""
    if not (re.fullmatch(r"\d+", subject) and re.fullmatch(r"\d+", study) and re.fullmatch(r"[\w-]+", dicom)):
        return None  # no id of the data set, and perhaps a path that leads elsewhere
    stem = folder / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / dicom
    return next((str(path) for suffix in (".jpg", ".dcm") if (path := stem.with_name(dicom + suffix)).is_file()), None)


def _described(frame: pd.DataFrame, tables: dict[str, Table]) -> pd.DataFrame:
    """With the split of the image and the labels of its study, where these tables are there."""
    if "split" in tables:
        split = _rows(tables["split"], "dicom_id", ["split"], frame).rename(columns={"split": "cxr_split"})
        frame = frame.merge(split, how="left", on="dicom_id").fillna({"cxr_split": ""})
    if "chexpert" in tables:
        frame = frame.merge(_labels(tables["chexpert"], frame), how="left", on="study_id")
    return frame


def _labels(table: Table, frame: pd.DataFrame) -> pd.DataFrame:
    rows = _rows(table, "study_id", [name.lower() for name in _FINDINGS], frame)
    studies = rows["study_id"].to_numpy(object)

    def values(name: str) -> NDArray[np.float64]:
        return numbers(rows[name.lower()].to_numpy(object), lambda i: f"{table.path}, study {one_line(studies[i], 20)}, column {name}")

    return pd.DataFrame({"study_id": studies} | {column: values(name) for column, name in zip(CHEXPERT, _FINDINGS, strict=True)})


def _rows(table: Table, key: str, columns: list[str], frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table whose `key` stands in `frame`, the first of each."""
    wanted = pa.array(frame[key].unique(), pa.string())
    kept = [block.filter(pc.is_in(block[key], wanted)).to_pandas() for _, block in table.batches([key, *columns])]
    return pd.concat([pd.DataFrame(columns=[key, *columns], dtype=object), *kept], ignore_index=True).drop_duplicates(key)


def export(linked: pd.DataFrame, folder: Path, size: int = 512) -> dict[str, str]:
    """Write the images of `link` into `folder/images` as 8-bit grey JPEG of quality 95, that of the data set.

    Args:
        linked: `sample_id` and `path`, a row an image. folder: made where it is not there.
        size: pixels; an image whose shorter side has more is scaled down to it, a smaller one keeps its size.

    Returns:
        sample id -> path of its image relative to `folder`.

    Raises:
        DataError: an image is damaged, too large or too small (see `read_picture`), or the folder cannot be written.
    """
    rows = list(zip(linked["sample_id"], linked["path"], strict=True))
    names = {sample: f"images/{quote(sample, safe='')}.jpg" for sample, _ in rows}
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_WORKERS) as pool:  # decoding leaves the interpreter free
            list(pool.map(lambda row: _write(Path(row[1]), folder / names[row[0]], size), rows))
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}); choose a folder that is writable") from error
    return names


def _write(source: Path, target: Path, size: int) -> None:
    image = Image.fromarray(read_picture(source, str(source), size)).convert("L")
    scale = size / min(image.size)
    if scale < 1:
        width, height = (max(size, round(scale * side)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    image.save(target, quality=_JPEG_QUALITY)
