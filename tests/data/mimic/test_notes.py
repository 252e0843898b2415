"""Notes of the first hours: which count, from when, and what the official tables hold that a plain reader trips over."""

import csv
import gzip
import io
from pathlib import Path

import pandas as pd
import pytest

from cm2pyro.data.mimic.notes import mimic3_notes, mimic4_notes
from cm2pyro.errors import ConfigError, DataError
from tests.refusals import refused

HEADER3 = "ROW_ID,SUBJECT_ID,HADM_ID,CHARTDATE,CHARTTIME,STORETIME,CATEGORY,DESCRIPTION,CGID,ISERROR,TEXT"
HEADER4 = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text"
# 1a and 1b are two stays of one admission, 1c ends after ten hours, 2 has no known end, 3 begins at midnight.
STAYS = pd.DataFrame(
    [
        ("1a", "1", "100", "2150-03-01 07:30:00", "2150-03-06 12:00:00"),
        ("1b", "1", "100", "2150-03-10 00:00:01", "2150-03-20 00:00:00"),
        ("1c", "1", "101", "2151-01-01 12:00:00", "2151-01-01 22:00:00"),
        ("2", "2", "", "2160-06-01 12:00:00", None),
        ("3", "3", "300", "2170-01-02 00:00:00", "2170-02-01 00:00:00"),
    ],
    columns=["sample_id", "subject_id", "hadm_id", "intime", "outtime"],
).assign(intime=lambda f: pd.to_datetime(f.intime), outtime=lambda f: pd.to_datetime(f.outtime))


def note(subject: str, hadm: str, time: str, text: str = "t", category: str = "Nursing", error: str = "", date: str | None = None) -> tuple:
    date = time[:10] + " 00:00:00" if date is None else date
    return ("9", subject, hadm, date, time, "2199-01-01 00:00:00", category, "Report", "77", error, text)


def write(path: Path, header: str, rows: list[tuple]) -> Path:
    stream = io.StringIO(newline="")
    stream.write(header + "\n")
    csv.writer(stream, lineterminator="\n").writerows(rows)
    data = stream.getvalue().encode()
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


def run3(folder: Path, *rows: tuple, hours: float = 48, **options: object) -> tuple[list[tuple], dict[str, int]]:
    """Rows as (sample, hours, text), and the counts that are not 0; `read` must be the sum of the others."""
    path = write(folder / "NOTEEVENTS.csv.gz", HEADER3, list(rows))
    return plain(*mimic3_notes(STAYS, path, hours, **options))  # type: ignore[arg-type]


def plain(frame: pd.DataFrame, counts: dict[str, int]) -> tuple[list[tuple], dict[str, int]]:
    assert list(frame.columns) == ["sample_id", "hours", "text", "category"]
    assert counts["read"] == sum(counts.values()) - counts["read"]
    return list(frame[["sample_id", "hours", "text"]].itertuples(index=False, name=None)), {k: n for k, n in counts.items() if n}


def test_the_edges_of_the_window_belong_to_it(tmp_path: Path) -> None:
    found, counts = run3(
        tmp_path,
        note("1", "100", "2150-03-01 07:29:59", "just before"),
        note("1", "100", "2150-03-01 07:30:00", "first"),
        note("1", "100", "2150-03-03 07:30:00", "last"),
        note("1", "100", "2150-03-03 07:30:01", "just after"),
        note("3", "300", "2170-01-02 00:00:00", "midnight"),
    )
    assert found == [("1a", 0.0, "first"), ("1a", 48.0, "last"), ("3", 0.0, "midnight")]
    assert counts == {"read": 5, "outside_window": 2, "kept": 3}


def test_nothing_after_the_stay_counts(tmp_path: Path) -> None:
    found, counts = run3(
        tmp_path,
        note("1", "101", "2151-01-01 22:00:00", "transferred"),
        note("1", "101", "2151-01-01 22:00:01", "on the ward"),
        note("2", "", "2160-06-03 12:00:00", "no end known"),
    )
    assert found == [("1c", 10.0, "transferred"), ("2", 48.0, "no end known")]
    assert counts == {"read": 3, "outside_window": 1, "kept": 2}


def test_a_note_with_a_date_alone_counts_when_its_day_is_over(tmp_path: Path) -> None:
    def dated(subject: str, hadm: str, day: str) -> tuple:
        return note(subject, hadm, "", f"echo of {day}", "Echo", date=day)

    found, counts = run3(
        tmp_path,
        dated("1", "100", "2150-02-28 00:00:00"),  # ends at 00:00 on the day of admission, before the stay
        dated("1", "100", "2150-03-01 00:00:00"),  # the day of admission, over after 16.5 h
        dated("1", "100", "2150-03-02"),  # as some exports write it
        dated("1", "100", "2150-03-03 00:00:00"),  # may be of the afternoon, which lies beyond the window
        dated("3", "300", "2170-01-01 00:00:00"),  # over just when the stay begins: all of it lies before
        dated("3", "300", "2170-01-03 00:00:00"),  # over just when the window ends
        dated("1", "101", "2151-01-01 00:00:00"),  # the stay ended that evening
    )
    assert found == [
        ("1a", 16.5, "echo of 2150-03-01 00:00:00"),
        ("1a", 40.5, "echo of 2150-03-02"),
        ("3", 48.0, "echo of 2170-01-03 00:00:00"),
    ]
    assert counts == {"read": 7, "day_outside_window": 4, "kept": 3}


def test_a_window_may_be_no_whole_number_of_hours(tmp_path: Path) -> None:
    rows = (note("1", "100", "2150-03-01 08:00:00", "in"), note("1", "100", "2150-03-01 08:00:01", "out"))
    assert run3(tmp_path, *rows, hours=0.5)[0] == [("1a", 0.5, "in")]


def test_errors_and_discharge_summaries_never_count(tmp_path: Path) -> None:
    time = "2150-03-01 08:30:00"
    found, counts = run3(
        tmp_path,
        note("1", "100", time, "wrong patient", error="1"),
        note("1", "100", time, "died", "Discharge summary"),
        note("1", "100", time, "died", " DISCHARGE SUMMARY "),
        note("1", "100", time, "seen", "Physician "),
        note("1", "100", "", "no time at all", date=""),
        note("1", "100", time, " \n "),
    )
    assert found == [("1a", 1.0, "seen")]
    assert counts == {"read": 6, "error": 1, "discharge_summary": 2, "without_time": 1, "empty": 1, "kept": 1}


def test_categories(tmp_path: Path) -> None:
    time = "2150-03-01 08:30:00"
    rows = (
        note("1", "100", time, "a", "Physician "),
        note("1", "100", time, "b", "Radiology"),
        note("1", "100", time, "c", "Nursing/other"),
    )
    found, counts = run3(tmp_path, *rows, categories=("physician", "RADIOLOGY"))
    assert [text for _, _, text in found] == ["a", "b"]
    assert counts == {"read": 3, "other_category": 1, "kept": 2}
    frame, _ = mimic3_notes(STAYS, tmp_path, 48)
    assert frame.category.tolist() == ["Physician", "Radiology", "Nursing/other"]
    with refused(ConfigError, "'Discharge summary'", "leave it out"):
        run3(tmp_path, *rows, categories=("discharge summary",))
    with refused(ConfigError, "'Nursng'", "did you mean 'Nursing'?"):
        run3(tmp_path, *rows, categories=("Nursng",))


def test_a_note_belongs_to_its_admission_or_else_to_its_subject(tmp_path: Path) -> None:
    found, counts = run3(
        tmp_path,
        note("1", "", "2150-03-10 01:00:01", "no admission"),
        note("1", "100", "2150-03-10 00:00:01", "second stay of the admission"),
        note("1", "101", "2150-03-01 08:30:00", "time of another admission"),
        note("2", "", "2160-06-01 13:00:00", "the stay has no admission"),
        note("2", "222", "2160-06-01 13:00:00", "an admission that is nobody's"),
        note("9", "", "2160-06-01 13:00:00", "a stranger"),
        note("9", "100", "2150-03-01 08:30:00", "a stranger in our admission"),
    )
    assert found == [("1b", 0.0, "second stay of the admission"), ("1b", 1.0, "no admission"), ("2", 1.0, "the stay has no admission")]
    assert counts == {"read": 7, "of_no_stay": 3, "outside_window": 1, "kept": 3}


def test_a_note_may_count_for_two_stays(tmp_path: Path) -> None:
    both = pd.concat([STAYS.iloc[:1], STAYS.iloc[:1].assign(sample_id="1z")])
    path = write(tmp_path / "noteevents.csv", HEADER3.lower(), [note("1", "100", "2150-03-01 08:30:00", "x")])
    frame, counts = mimic3_notes(both, path, 48)
    assert frame.sample_id.tolist() == ["1a", "1z"]
    assert (counts["read"], counts["kept"]) == (1, 1)


def test_text_comes_as_it_stands(tmp_path: Path) -> None:
    texts = [
        'Pt said "no, thanks", left.\nVitals:\tHR 80,\r\n\r\n  BP 120/80 [**Name (NI) 12**]\n',
        '"',
        'ends in a quote"',
        ",,,",
        "NA",
        "null",
        "é ü 38°",
        "x" * 1_000_000,
    ]
    found, _ = run3(tmp_path, *(note("1", "100", f"2150-03-01 08:30:{i:02d}", text) for i, text in enumerate(texts)))
    assert [text for _, _, text in found] == texts


def test_notes_come_by_sample_and_time_and_then_as_in_the_table(tmp_path: Path) -> None:
    found, _ = run3(
        tmp_path,
        note("3", "300", "2170-01-02 01:00:00", "e"),
        note("1", "100", "2150-03-02 07:30:00", "c"),
        note("1", "100", "2150-03-01 07:30:00", "a"),
        note("1", "100", "2150-03-02 07:30:00", "d"),
        note("1", "", "2150-03-01 07:30:00", "b"),
    )
    assert [text for _, _, text in found] == ["a", "b", "c", "d", "e"]


@pytest.mark.slow
def test_a_table_of_several_blocks_with_notes_across_their_borders(tmp_path: Path) -> None:
    filler = ('many lines, "quoted"\n' * 5_000).strip()  # 100 kB a note, 40 MB in all
    rows = [
        note("1", "100", "2150-03-01 08:30:00", f"{i}\n{filler}") if i % 4 == 0 else note("8", "8", "bad time", filler) for i in range(400)
    ]
    path = write(tmp_path / "NOTEEVENTS.csv", HEADER3, rows)
    found, counts = plain(*mimic3_notes(STAYS, path, 48))
    assert [text.partition("\n")[0] for _, _, text in found] == [str(i) for i in range(0, 400, 4)]
    assert all(text.partition("\n")[2] == filler for _, _, text in found)
    assert counts == {"read": 400, "of_no_stay": 300, "kept": 100}


def test_an_empty_table_gives_no_notes(tmp_path: Path) -> None:
    assert run3(tmp_path) == ([], {})
    assert mimic3_notes(STAYS, tmp_path / "NOTEEVENTS.csv.gz", 48)[0].hours.dtype == "float64"
    assert mimic3_notes(STAYS.iloc[:0], tmp_path / "NOTEEVENTS.csv.gz", 48)[1]["read"] == 0


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with refused(DataError, "noteevents", str(tmp_path)):
        mimic3_notes(STAYS, tmp_path / "NOTEEVENTS.csv", 48)
    with refused(DataError, "NOTEEVENTS.csv.gz, row 3", "'yesterday'", "2150-03-01 07:30:00"):
        run3(tmp_path, note("1", "100", "2150-03-01 08:30:00"), note("1", "100", "yesterday"))
    latin = write(tmp_path / "NOTEEVENTS.csv.gz", HEADER3, [note("1", "100", "2150-03-01 08:30:00", "38°")])
    latin.write_bytes(gzip.compress(gzip.decompress(latin.read_bytes()).decode().encode("latin-1")))
    with refused(DataError, "NOTEEVENTS.csv.gz", "UTF-8"):
        mimic3_notes(STAYS, latin, 48)
    write(tmp_path / "NOTEEVENTS.csv.gz", HEADER3.replace("ISERROR", "MISTAKE"), [])
    with refused(DataError, "ISERROR", "NOTEEVENTS.csv.gz"):
        mimic3_notes(STAYS, tmp_path / "NOTEEVENTS.csv.gz", 48)
    whole = write(
        tmp_path / "NOTEEVENTS.csv.gz", HEADER3, [note("1", "100", "2150-03-01 08:30:00", str(i)) for i in range(9999)]
    ).read_bytes()
    (tmp_path / "NOTEEVENTS.csv.gz").write_bytes(whole[: len(whole) // 2])
    with refused(DataError, "NOTEEVENTS.csv.gz"):
        mimic3_notes(STAYS, tmp_path / "NOTEEVENTS.csv.gz", 48)


def report(kind: str, charted: str, stored: str, text: str) -> tuple:
    return (f"1-{kind}-1", "1", "100", kind, "1", charted, stored, text)


@pytest.mark.parametrize("place", ["radiology.csv", "note/radiology.csv.gz"])
def test_radiology_reports_of_mimic4(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    inside, later = "2150-03-01 08:30:00", "2150-03-09 09:00:00"
    write(
        tmp_path / place,
        HEADER4,
        [
            report("RR", inside, later, "EXAMINATION:  CHEST,\n___ year old"),
            report("AR", inside, "2150-03-01 09:30:00", "addendum of the next hour"),
            report("AR", inside, later, "addendum of the next week"),
            report("AR", inside, "", "addendum of no time"),
            report("DS", inside, inside, "a discharge note that strayed here"),
            report("RR", later, later, "the next film"),
        ],
    )
    write(tmp_path / "discharge.csv", HEADER4, [report("DS", inside, inside, "died")])
    frame, counts = mimic4_notes(STAYS, tmp_path, 48)
    assert list(frame.itertuples(index=False, name=None)) == [
        ("1a", 1.0, "EXAMINATION:  CHEST,\n___ year old", "Radiology"),
        ("1a", 2.0, "addendum of the next hour", "Radiology addendum"),
    ]
    expected = {"read": 6, "other_category": 1, "without_time": 1, "outside_window": 2, "kept": 2}
    assert {reason: count for reason, count in counts.items() if count} == expected


def test_mimic4_without_radiology_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "discharge.csv", HEADER4, [])
    with refused(DataError, "radiology.csv"):
        mimic4_notes(STAYS, tmp_path, 48)


@pytest.mark.real
def test_the_demo_has_the_header_alone(real_data: Path) -> None:
    frame, counts = mimic3_notes(STAYS, real_data / "mimic3_demo" / "NOTEEVENTS.csv.gz", 48)
    assert len(frame) == counts["read"] == 0
