"""Small tables in the official schemas, in which every rule of the cohort and of the events occurs a known number of times."""

import csv
import gzip
from dataclasses import dataclass, field
from pathlib import Path

import pytest

III = {
    "PATIENTS": "ROW_ID,SUBJECT_ID,GENDER,DOB,DOD,DOD_HOSP,DOD_SSN,EXPIRE_FLAG",
    "ADMISSIONS": "ROW_ID,SUBJECT_ID,HADM_ID,ADMITTIME,DISCHTIME,DEATHTIME,ADMISSION_TYPE,ADMISSION_LOCATION,DISCHARGE_LOCATION,INSURANCE,"
    "LANGUAGE,RELIGION,MARITAL_STATUS,ETHNICITY,EDREGTIME,EDOUTTIME,DIAGNOSIS,HOSPITAL_EXPIRE_FLAG,HAS_CHARTEVENTS_DATA",
    "ICUSTAYS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,DBSOURCE,FIRST_CAREUNIT,LAST_CAREUNIT,FIRST_WARDID,LAST_WARDID,INTIME,OUTTIME,LOS",
    "CHARTEVENTS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,ITEMID,CHARTTIME,STORETIME,CGID,VALUE,VALUENUM,VALUEUOM,WARNING,ERROR,"
    "RESULTSTATUS,STOPPED",
    "LABEVENTS": "ROW_ID,SUBJECT_ID,HADM_ID,ITEMID,CHARTTIME,VALUE,VALUENUM,VALUEUOM,FLAG",
    "DIAGNOSES_ICD": "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE",
    "NOTEEVENTS": "ROW_ID,SUBJECT_ID,HADM_ID,CHARTDATE,CHARTTIME,STORETIME,CATEGORY,DESCRIPTION,CGID,ISERROR,TEXT",
}
IV = {
    "hosp/patients": "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
    "hosp/admissions": "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admit_provider_id,admission_location,"
    "discharge_location,insurance,language,marital_status,race,edregtime,edouttime,hospital_expire_flag",
    "icu/icustays": "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los",
    "icu/chartevents": "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,valueuom,warning",
    "hosp/labevents": "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,storetime,value,valuenum,valueuom,"
    "ref_range_lower,ref_range_upper,flag,priority,comments",
    "hosp/diagnoses_icd": "subject_id,hadm_id,seq_num,icd_code,icd_version",
}


@dataclass
class Tables:
    """Rows by table, each a dict of the columns that are not empty, named as in the schema."""

    schema: dict[str, str]
    rows: dict[str, list[dict[str, object]]] = field(default_factory=dict)

    def add(self, table: str, **cells: object) -> None:
        self.rows.setdefault(table, []).append(cells)

    def write(self, folder: Path, compressed: bool = True, swap: bool = False) -> Path:
        """Every table of the schema into the folder. swap: headers, and names of files, in the other case."""
        for table, header in self.schema.items():
            names = header.split(",")
            unknown = {cell for row in self.rows.get(table, []) for cell in row} - set(names)
            assert not unknown, unknown
            *subs, name = (table.swapcase() if swap else table).split("/")
            where = folder.joinpath(*(sub.lower() for sub in subs))
            where.mkdir(parents=True, exist_ok=True)
            path = where / f"{name}.csv{'.gz' if compressed else ''}"
            with gzip.open(path, "wt", newline="") if compressed else path.open("w", newline="") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow(header.swapcase().split(",") if swap else names)
                writer.writerows([[row.get(column, "") for column in names] for row in self.rows.get(table, [])])
        return folder


START = "2150-01-01 10:30:00"

# stay, patient, admission, first and last unit, first and last ward, start, end; the comment says what becomes of it.
STAYS: list[tuple] = [
    (201, 1, 11, "MICU", "MICU", 5, 5, START, "2150-01-05 10:30:00"),  # kept; its values are below
    (202, 2, 12, "SICU", "SICU", 5, 5, START, "2150-01-03 10:30:00"),  # kept: exactly 48 h; dies in hospital
    (203, 3, 13, "MICU", "MICU", 5, 5, START, "2150-01-05 00:00:00"),  # kept; comes back after 30 days to the minute
    (204, 4, 14, "MICU", "MICU", 5, 5, START, "2150-01-05 00:00:00"),  # kept; comes back a minute later than that
    (205, 5, 15, "MICU", "CCU", 5, 5, START, "2150-01-05 00:00:00"),  # transferred between units
    (206, 6, 16, "MICU", "MICU", 5, 6, START, "2150-01-05 00:00:00"),  # transferred between wards
    (207, 7, 17, "MICU", "MICU", 5, 5, START, "2150-01-05 00:00:00"),  # two stays in one admission
    (208, 7, 17, "MICU", "MICU", 5, 5, "2150-01-06 00:00:00", "2150-01-09 00:00:00"),
    (209, 8, 18, "MICU", "MICU", 5, 5, START, "2150-01-05 00:00:00"),  # 17 years old
    (210, 9, 19, "MICU", "MICU", 5, 5, START, ""),  # without an end
    (211, 10, 20, "MICU", "MICU", 5, 5, START, "2150-01-03 10:29:59"),  # a second too short
    (212, 11, 21, "MICU", "MICU", 5, 5, START, "2150-01-05 00:00:00"),  # its only value comes after the window
    (213, 12, 99, "MICU", "MICU", 5, 5, START, "2150-01-05 00:00:00"),  # without an admission
    (214, 13, "", "MICU", "MICU", 5, 5, START, "2150-01-05 00:00:00"),  # without an admission
    (215, 14, 24, "MICU", "MICU", 5, 5, START, "2150-01-05 00:00:00"),  # without a patient
    (216, 16, 26, "CCU", "CCU", 5, 5, START, "2150-01-05 00:00:00"),  # kept; age hidden; dies by date alone
]

# patient, admission, stay, item, time, text, number, unit, error
CHARTS: list[tuple] = [
    (1, 11, 201, 220045, "2150-01-01 10:30:00", "80", 80, "bpm", 0),  # kept: the first second of the window
    (1, 11, 201, 220045, "2150-01-03 10:30:00", "81", 81, "bpm", 0),  # kept: the last one
    (1, 11, 201, 220045, "2150-01-03 10:30:01", "82", 82, "bpm", 0),  # outside_window
    (1, 11, 201, 220045, "2150-01-01 10:29:59", "83", 83, "bpm", 0),  # outside_window: only height and weight count early
    (1, 11, 201, 220045, "2150-01-01 12:00:00", "84", 84, "bpm", 1),  # error_flag
    (1, 11, 201, 220045, "2150-01-01 12:00:00", "", "", "", ""),  # no_value
    (1, 11, 201, 220045, "", "84", 84, "bpm", ""),  # no_time
    (1, 11, 201, 220045, "2150-01-01 12:00:00", "0", 0, "bpm", ""),  # impossible
    (1, 11, 201, 220045, "2150-01-01 12:00:00", "fast", "", "bpm", ""),  # unreadable
    (1, 11, 201, 220045, "2150-01-01 12:00:00", "84", 84, "Hz", ""),  # unit
    (1, 11, "", 220045, "2150-01-01 13:30:00", "85", 85, "bpm", ""),  # kept: given to the stay by time
    (1, 77, "", 220045, "2150-01-01 14:30:00", "86", 86, "bpm", ""),  # other_admission
    (1, 11, "", 220045, "2150-01-09 14:30:00", "86", 86, "bpm", ""),  # no_stay: after it ended
    (1, 11, 205, 220045, "2150-01-01 14:30:00", "86", 86, "bpm", ""),  # no_stay: an excluded one
    (2, 12, 201, 220045, "2150-01-01 14:30:00", "86", 86, "bpm", ""),  # no_stay: another patient's
    (1, 11, 201, 999, "2150-01-01 14:30:00", "86", 86, "bpm", ""),  # an item of none of the variables: not counted
    (5, 15, 205, 220045, "2150-01-01 14:30:00", "86", 86, "bpm", ""),  # a patient of no stay of the cohort: not counted
    (1, 11, 201, 226730, "2150-01-01 10:00:00", "170", 170, "cm", ""),  # kept: height just before, at hour 0
    (1, 11, 201, 226707, "2150-01-01 04:00:00", "67", 67, "Inch", ""),  # outside_window: too long before
    (1, 11, 201, 226531, "2150-01-01 11:30:00", "200", 200, "", ""),  # kept: pounds by the item
    (1, 11, 201, 678, "2150-01-01 11:30:00", "98.6", 98.6, "Deg. F", ""),  # kept
    (1, 11, 201, 223762, "2150-01-01 12:30:00", "100.4", 100.4, "?C", ""),  # kept: Fahrenheit in a Celsius field
    (1, 11, 201, 223835, "2150-01-01 11:30:00", "40", 40, "", ""),  # kept: percent
    (1, 11, 201, 190, "2150-01-01 12:30:00", "0.5", 0.5, "torr", ""),  # kept: the unit is wrong, the fraction is none the less
    (1, 11, 201, 190, "2150-01-01 13:30:00", "60", 60, "torr", ""),  # unit
    (1, 11, 201, 646, "2150-01-01 11:30:00", "0.97", 0.97, "%", ""),  # kept: a fraction
    (1, 11, 201, 220739, "2150-01-01 11:30:00", "None", 1, "", ""),  # kept: the word, code 4
    (1, 11, 201, 184, "2150-01-01 12:30:00", "4", 4, "", ""),  # kept: the number, code 3
    (1, 11, 201, 184, "2150-01-01 13:30:00", "7", 7, "", ""),  # unreadable
    (1, 11, 201, 223951, "2150-01-01 11:30:00", "Abnormal >3 Seconds", "", "", ""),  # kept, code 1
    (1, 11, 201, 115, "2150-01-01 12:30:00", "Other/Remarks", "", "", ""),  # unreadable
    (1, 11, 201, 220179, "2150-01-01 11:30:00", "120", 120, "mmHg", ""),  # repeated: an arterial pressure stands beside it
    (1, 11, 201, 220050, "2150-01-01 11:30:00", "110", 110, "mmHg", ""),  # kept: the mean of these two
    (1, 11, 201, 220050, "2150-01-01 11:30:00", "114", 114, "mmHg", ""),  # repeated
    (1, 11, 201, 780, "2150-01-01 11:30:00", "7.31", "", "", ""),  # kept: the number is in the text alone
    (2, 12, 202, 211, "2150-01-01 11:30:00", "90", 90, "BPM", ""),  # kept
    (3, 13, 203, 211, "2150-01-01 11:30:00", "91", 91, "BPM", ""),  # kept
    (4, 14, 204, 211, "2150-01-01 11:30:00", "92", 92, "BPM", ""),  # kept
    (11, 21, 212, 211, "2150-01-03 11:30:00", "93", 93, "BPM", ""),  # outside_window
    (16, 26, 216, 211, "2150-01-01 11:30:00", "94", 94, "BPM", ""),  # kept
]

# patient, admission, item, time, text, number, unit
LABS: list[tuple] = [
    (1, 11, 50931, "2150-01-01 15:30:00", "100", 100, "mg/dL"),  # kept
    (1, "", 50931, "2150-01-01 16:30:00", "10", 10, "mmol/L"),  # kept
    (1, "", 50931, "2150-01-01 09:30:00", "100", 100, "mg/dL"),  # no_stay: before it began
    (1, "", 50931, "2150-01-04 09:30:00", "100", 100, "mg/dL"),  # outside_window
    (1, 11, 51478, "2150-01-01 15:30:00", "300", 300, "mg/dL"),  # glucose of urine: not counted
    (1, 11, 50820, "2150-01-01 15:30:00", "735", 735, "units"),  # impossible
]

KEPT = [
    ("201", 0.0, "heart_rate", 80.0),
    ("201", 0.0, "height", 170.0),
    ("201", 1.0, "capillary_refill_rate", 1.0),
    ("201", 1.0, "fraction_inspired_oxygen", 0.4),
    ("201", 1.0, "gcs_eye", 4.0),
    ("201", 1.0, "oxygen_saturation", 97.0),
    ("201", 1.0, "ph", 7.31),
    ("201", 1.0, "systolic_blood_pressure", 112.0),
    ("201", 1.0, "temperature", 37.0),
    ("201", 1.0, "weight", 90.718474),
    ("201", 2.0, "fraction_inspired_oxygen", 0.5),
    ("201", 2.0, "gcs_eye", 3.0),
    ("201", 2.0, "temperature", 38.0),
    ("201", 3.0, "heart_rate", 85.0),
    ("201", 5.0, "glucose", 100.0),
    ("201", 6.0, "glucose", 180.16),
    ("201", 48.0, "heart_rate", 81.0),
    ("202", 1.0, "heart_rate", 90.0),
    ("203", 1.0, "heart_rate", 91.0),
    ("204", 1.0, "heart_rate", 92.0),
    ("216", 1.0, "heart_rate", 94.0),
]

DROPPED = {
    "error_flag": 1,
    "no_value": 1,
    "no_time": 1,
    "no_stay": 4,
    "other_admission": 1,
    "outside_window": 5,
    "unreadable": 3,
    "unit": 2,
    "impossible": 2,
    "repeated": 2,
    "unmatched_stay": 0,
}


@pytest.fixture
def mimic3() -> Tables:
    """The tables of MIMIC-III."""
    tables = Tables(III)
    for patient in (*range(1, 14), 16):  # 14 is not there
        born = {8: "2132-06-01 00:00:00", 16: "1850-01-01 00:00:00"}.get(patient, "2090-01-01 00:00:00")
        died = {16: "2150-01-04 00:00:00"}.get(patient, "")
        tables.add("PATIENTS", SUBJECT_ID=patient, GENDER="FM"[patient % 2], DOB=born, DOD=died)
    for patient, admission in sorted({(int(row[1]), int(row[2])) for row in STAYS if row[2] not in (99, "")}):
        cells = {"DEATHTIME": "2150-01-03 20:00:00", "HOSPITAL_EXPIRE_FLAG": 1} if patient == 2 else {"HOSPITAL_EXPIRE_FLAG": 0}
        admit(tables, patient, admission, "2150-01-01 08:00:00", "2150-01-10 12:00:00", **cells)
    admit(tables, 3, 33, "2150-02-09 12:00:00", "2150-02-12 12:00:00", HOSPITAL_EXPIRE_FLAG=0)
    admit(tables, 4, 34, "2150-02-09 12:01:00", "2150-02-12 12:00:00", HOSPITAL_EXPIRE_FLAG=0)
    for stay, patient, admission, first, last, ward, new, start, end in STAYS:
        units = {"FIRST_CAREUNIT": first, "LAST_CAREUNIT": last, "FIRST_WARDID": ward, "LAST_WARDID": new}
        tables.add("ICUSTAYS", SUBJECT_ID=patient, HADM_ID=admission, ICUSTAY_ID=stay, INTIME=start, OUTTIME=end, **units)
    for patient, admission, stay, item, time, text, number, unit, error in CHARTS:
        cells = {"SUBJECT_ID": patient, "HADM_ID": admission, "ICUSTAY_ID": stay, "ITEMID": item, "CHARTTIME": time, "ERROR": error}
        tables.add("CHARTEVENTS", **cells, VALUE=text, VALUENUM=number, VALUEUOM=unit)
    for patient, admission, item, time, text, number, unit in LABS:
        cells = {"SUBJECT_ID": patient, "HADM_ID": admission, "ITEMID": item, "CHARTTIME": time}
        tables.add("LABEVENTS", **cells, VALUE=text, VALUENUM=number, VALUEUOM=unit)
    tables.add("DIAGNOSES_ICD", SUBJECT_ID=1, HADM_ID=11, SEQ_NUM=1, ICD9_CODE="0389")  # septicemia
    tables.add("DIAGNOSES_ICD", SUBJECT_ID=2, HADM_ID=12, SEQ_NUM=1, ICD9_CODE="V3000")
    return tables


def admit(tables: Tables, patient: int, admission: int, start: str, end: str, **cells: object) -> None:
    given = {"SUBJECT_ID": patient, "HADM_ID": admission, "ADMITTIME": start, "DISCHTIME": end, "ADMISSION_TYPE": "EMERGENCY"}
    tables.add("ADMISSIONS", **given, **cells)


@pytest.fixture
def mimic4(mimic3: Tables) -> Tables:
    """The same content as MIMIC-IV: no wards, so stay 206 is no transfer; CareVue's items under MetaVision's ids."""
    tables = Tables(IV)
    for row in mimic3.rows["PATIENTS"]:
        born = int(str(row["DOB"])[:4])
        # Anchored two years before the stay, as far as that goes: what counts is the age in the year of the stay.
        anchor = {"anchor_age": 91, "anchor_year": 2152} if born < 2000 else {"anchor_age": 2148 - born, "anchor_year": 2148}
        anchor = {"anchor_age": 17, "anchor_year": 2150} if row["SUBJECT_ID"] == 8 else anchor
        tables.add("hosp/patients", subject_id=row["SUBJECT_ID"], gender=row["GENDER"], dod=str(row["DOD"])[:10], **anchor)
    renamed = {
        "hosp/admissions": ("ADMISSIONS", {}),
        "icu/icustays": ("ICUSTAYS", {"icustay_id": "stay_id"}),
        "icu/chartevents": ("CHARTEVENTS", {"icustay_id": "stay_id"}),
        "hosp/labevents": ("LABEVENTS", {}),
        "hosp/diagnoses_icd": ("DIAGNOSES_ICD", {"icd9_code": "icd_code"}),
    }
    for table, (old, names) in renamed.items():
        known = IV[table].split(",")
        for row in mimic3.rows[old]:
            cells = {names.get(name.lower(), name.lower()): cell for name, cell in row.items()}
            tables.add(table, **{name: cell for name, cell in cells.items() if name in known})
    for row in tables.rows["hosp/diagnoses_icd"]:
        row["icd_version"] = 9
    metavision = {211: 220045, 678: 223761, 190: 223835, 646: 220277, 184: 220739, 115: 224308, 780: 223830}
    for row in tables.rows["icu/chartevents"]:
        row["itemid"] = metavision.get(row["itemid"], row["itemid"])  # type: ignore[call-overload]
    return tables


@dataclass(frozen=True)
class Expected:
    """What `mimic3` must give: rows of vitals.parquet, and counts of dropped rows."""

    kept: list[tuple[str, float, str, float]]
    dropped: dict[str, int]


@pytest.fixture
def expected() -> Expected:
    return Expected(KEPT, DROPPED)
