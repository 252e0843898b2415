"""Notes in cells, files and tables: cleaned, ordered by time, and what a rule leaves out is remarks with file and row."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cm2pyro.config import Modality
from cm2pyro.data import notes as notes_module
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.data.notes import LONGEST, Notes, clean, is_path, read_notes
from tests.refusals import refusal


def modality(**options: Any) -> Modality:
    return Modality(kind="text", encoder="bag", **options)


def manifest_of(folder: Path, cells: list[str]) -> Manifest:
    frame = pd.DataFrame({"sample_id": [f"s{i}" for i in range(len(cells))], "note": cells})
    frame.to_csv(folder / "m.csv", index=False)
    return read_manifest(folder / "m.csv")


def read(manifest: Manifest, keep_end: bool = False, **options: Any) -> Notes:
    return read_notes(manifest, "note", modality(**options), keep_end)


def listed(notes: Notes) -> list[tuple[int, str]]:
    return list(zip(notes.rows.tolist(), notes.texts, strict=True))


# --- cleaning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Seen by Dr. [**Last Name (STitle) 123**] on [**2101-10-20**].", "Seen by Dr. on ."),
        ("Mr. ___ was seen at ______ today", "Mr. was seen at today"),
        ("snake__case stays", "snake__case stays"),
        ("a mask [**over\ntwo lines**] ends", "a mask ends"),
        ("never closed [** 12 mg", "never closed [** 12 mg"),
        ("two [**a**] masks [**b**] apart", "two masks apart"),
        ("gaps \t of\r\n\r\n all   kinds\u00a0here\u2028.", "gaps of all kinds here ."),
        ("nul\0bell\x07", "nul bell"),
        ("ﬁbrosis ½ ３mg", "fibrosis 1⁄2 3mg"),
        ("NA", "NA"),
        ("[**only a mask**] ___", ""),
        (" \n\t\0", ""),
        ("\ufeffnote", "note"),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_masks_that_never_close_cost_no_more_than_others() -> None:
    # A lazy pattern looked through the rest of the note from each of them: minutes for one note.
    text = "[**" * (LONGEST // 3)
    assert clean(text) == text


NAMES_A_FILE = ("a.txt", "notes/A.TXT", "a.csv", "b.parquet", "b.pq")
IS_THE_NOTE = ("NA", "see a.txt", "stable.", "", "a.pdf")


@pytest.mark.parametrize("cell", [*NAMES_A_FILE, *IS_THE_NOTE])
def test_what_names_a_file(cell: str) -> None:
    assert is_path(cell, Path("nowhere")) == (cell in NAMES_A_FILE)


# --- places ----------------------------------------------------------------------------------------------------------


def test_cells_files_and_one_table_give_the_same_notes(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("first note,\nof two lines")
    pd.DataFrame({"text": ["later", "early"], "hours": ["7.5", "0"]}).to_csv(tmp_path / "two.csv", index=False)
    pd.DataFrame({"hours": [7.5, 0.0], "text": ["later", "early"]}).to_parquet(tmp_path / "two.parquet")
    expected = [(0, "first note, of two lines"), (1, "early"), (1, "later"), (3, "NA")]
    for two in ("two.csv", "two.parquet"):
        found = read(manifest_of(tmp_path, ["one.txt", two, "", "NA"]))
        assert listed(found) == expected
        assert (found.n, found.remarks) == (4, ["modality note: the config names no hours, so notes of any hour are read, up to 7.5"])
    assert listed(read(manifest_of(tmp_path, ["first note,\nof two lines", "two.csv", "", "NA"]))) == expected
    table = pd.DataFrame(
        {
            "sample_id": ["s1", "other", "s3", "s1", "s0"],
            "hours": ["7.5", "1", "", "0", ""],
            "text": ["later", "of another", "NA", "early", "first note,\nof two lines"],
        }
    )
    table.to_csv(tmp_path / "all.csv", index=False)
    table.assign(hours=pd.to_numeric(table["hours"])).to_parquet(tmp_path / "all.parquet")
    for name in ("all.csv", "all.parquet"):
        assert listed(read(manifest_of(tmp_path, [""] * 4), table=name)) == expected


def test_notes_are_ordered_by_hour_and_those_without_come_first_as_they_stand(tmp_path: Path) -> None:
    rows = [("", "c"), ("2", "at 2"), ("10", "at 10"), ("", "a"), ("2", "also at 2"), ("-3", "at -3")]
    pd.DataFrame(rows, columns=["hours", "text"]).to_csv(tmp_path / "n.csv", index=False)
    found = read(manifest_of(tmp_path, ["", "n.csv"]))
    assert listed(found) == [(1, text) for text in ("c", "a", "at -3", "at 2", "also at 2", "at 10")]
    pd.DataFrame({"text": ["b", "a", "c"]}).to_csv(tmp_path / "n.csv", index=False)
    assert found.n == 2
    assert listed(read(manifest_of(tmp_path, ["n.csv"]))) == [(0, "b"), (0, "a"), (0, "c")]


def test_a_window_includes_its_ends_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    hours = ["48", "0", "48.001", "-0.5", "", "99"]
    pd.DataFrame({"hours": hours, "text": [f"at {hour}" for hour in hours]}).to_csv(tmp_path / "n.csv", index=False)
    manifest = manifest_of(tmp_path, ["", "n.csv"])
    found = read(manifest, hours=48)
    assert found.texts == ["at", "at 0", "at 48"]
    assert len(found.remarks) == 1
    for part in ("modality note: 3 notes outside 0 to 48 hours are left out", "n.csv", "row 3 (sample_id s1)", "line 4"):
        assert part in found.remarks[0]
    assert len(read(manifest).texts) == 6


def test_an_empty_note_counts_as_missing_and_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "nothing.txt").write_bytes(b"")
    found = read(manifest_of(tmp_path, ["fine", "empty.txt", "nothing.txt", "   ", "[**Name**] ___", ""]))
    assert listed(found) == [(0, "fine")]
    assert len(found.remarks) == 1
    for part in ("4 notes are empty and count as missing", "m.csv, row 3 (sample_id s1)"):
        assert part in found.remarks[0]


def test_an_empty_note_among_others_of_a_sample_is_dropped(tmp_path: Path) -> None:
    pd.DataFrame({"text": ["a", "", "b"]}).to_csv(tmp_path / "n.csv", index=False)
    found = read(manifest_of(tmp_path, ["n.csv"]))
    assert found.texts == ["a", "b"]
    assert "1 notes are empty" in found.remarks[0]
    assert "line 3" in found.remarks[0]


@pytest.mark.parametrize("keep_end", [False, True])
def test_a_note_of_a_megabyte_is_cut_and_said(tmp_path: Path, keep_end: bool) -> None:
    text = "begin " + "word " * 200_000 + "end"
    (tmp_path / "big.txt").write_text(text)
    expected = clean(text[-LONGEST:] if keep_end else text[:LONGEST])
    for cell in ("big.txt", text):
        found = read(manifest_of(tmp_path, ["short", cell]), keep_end)
        assert found.texts == ["short", expected]
        assert "1 notes longer than 100,000 characters are read to that length" in found.remarks[0]
        assert ("from their end" in found.remarks[0]) == keep_end
        assert "row 3 (sample_id s1)" in found.remarks[0]
        assert len(found.remarks[0]) < 400
    assert expected.endswith("end") == keep_end


def test_a_note_is_cut_before_it_is_cleaned_so_its_size_bounds_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    monkeypatch.setattr(notes_module, "clean", lambda text: lengths.append(len(text)) or "x")
    read(manifest_of(tmp_path, ["y " * LONGEST]))
    assert lengths == [LONGEST]


def test_nul_bytes_in_a_text_file_are_gaps(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_bytes(b"\xef\xbb\xbfbefore\0after")
    assert read(manifest_of(tmp_path, ["n.txt"])).texts == ["before after"]


def test_lone_surrogates_of_a_data_frame_are_gaps() -> None:
    manifest = read_manifest(pd.DataFrame({"sample_id": ["a"], "note": ["x \ud800 y"]}, dtype=object))
    assert read(manifest).texts == ["x y"]


def test_neither_column_nor_notes(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("sample_id\na\nb\n")
    found = read(read_manifest(tmp_path / "m.csv"))
    assert (listed(found), found.n, found.remarks) == ([], 2, [])
    assert listed(read(manifest_of(tmp_path, ["", ""]))) == []
    (tmp_path / "t.csv").write_text("sample_id,text\n")
    assert listed(read(manifest_of(tmp_path, ["", ""]), table="t.csv", hours=48)) == []


# --- refusals --------------------------------------------------------------------------------------------------------


def test_other_encodings_are_refused_with_file_and_row(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_bytes("fièvre".encode("latin-1"))
    (tmp_path / "n.csv").write_bytes("text\nok\nfièvre\n".encode("latin-1"))
    (tmp_path / "t.csv").write_bytes("sample_id,text\ns0,ok\ns0,fièvre\n".encode("latin-1"))
    refusal(lambda: read(manifest_of(tmp_path, ["", "n.txt"])), "n.txt", "row 3 (sample_id s1)", "not UTF-8", "save it as UTF-8")
    (tmp_path / "wide.txt").write_bytes("fièvre".encode("utf-16"))
    refusal(lambda: read(manifest_of(tmp_path, ["", "wide.txt"])), "wide.txt", "row 3 (sample_id s1)", "UTF-16", "save it as UTF-8")
    refusal(lambda: read(manifest_of(tmp_path, ["", "n.csv"])), "n.csv", "row 3 (sample_id s1)", "line 3", "not UTF-8")
    refusal(lambda: read(manifest_of(tmp_path, [""]), table="t.csv"), "t.csv (modality note)", "line 3", "not UTF-8")


@pytest.mark.parametrize("hour", ["noon", "inf", "1e999"])
def test_an_hour_that_is_no_number_is_refused(tmp_path: Path, hour: str) -> None:
    pd.DataFrame({"hours": ["1", hour], "text": ["a", "b"]}).to_csv(tmp_path / "n.csv", index=False)
    refusal(lambda: read(manifest_of(tmp_path, ["", "n.csv"])), "n.csv", "row 3 (sample_id s1)", "line 3", "'hours'", "finite number")
    pd.DataFrame({"sample_id": ["s0"], "hours": [hour], "text": ["a"]}).to_csv(tmp_path / "t.csv", index=False)
    refusal(lambda: read(manifest_of(tmp_path, [""]), table="t.csv"), "t.csv (modality note), line 2", "'hours'")


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("note,hours\nx,1\n")
    (tmp_path / "t.csv").write_text("subject,text\nx,1\n")
    refusal(
        lambda: read(manifest_of(tmp_path, ["n.csv"])), "n.csv", "row 2 (sample_id s0)", "column 'text' is missing", "found note, hours"
    )
    refusal(lambda: read(manifest_of(tmp_path, [""]), table="t.csv"), "t.csv (modality note)", "column 'sample_id' is missing")


def test_a_file_that_is_not_there_or_lies_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out.txt").write_text("secret")
    for cell, says in (("gone.txt", "is not there"), ("../out.txt", "leaves the manifest's folder")):
        refusal(lambda cell=cell: read(manifest_of(tmp_path / "in", ["", cell])), "row 3 (sample_id s1)", says)


def test_rows_of_a_part_of_the_manifest_keep_their_numbers(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, ["zero", "one", "  ", "three"]).take([3, 2, 1])
    found = read(manifest)
    assert listed(found) == [(0, "three"), (2, "one")]
    assert "row 4 (sample_id s2)" in found.remarks[0]
    assert found.rows.dtype == np.int64


def test_a_file_name_may_hold_spaces_where_that_file_is(tmp_path: Path) -> None:
    (tmp_path / "patient 1.txt").write_text("calm")
    assert is_path("patient 1.txt", tmp_path)
    assert not is_path("patient 2.txt", tmp_path)
    assert not is_path("seen\npatient 1.txt", tmp_path)


def test_soft_hyphens_stand_inside_words() -> None:
    assert clean("pneumo\u00adthorax\u200b left\x07right") == "pneumothorax left right"
