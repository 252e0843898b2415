"""Diagnosis codes become phenotypes: well-known codes, spellings, what is unknown, and the demos recounted by the titles of the codes."""

from pathlib import Path

import pandas as pd
import pytest

from cm2pyro.data.mimic.phenotypes import PHENOTYPES, TITLES, phenotypes, unknown_codes
from cm2pyro.errors import DataError

# Codes whose meaning every coder knows, by phenotype: ICD-9-CM, then ICD-10-CM.
WELL_KNOWN: dict[str, tuple[str, str]] = {
    "acute_renal_failure": ("5849 5845 586", "N179 N170 N19"),
    "acute_cerebrovascular_disease": ("430 431 43491 43411", "I609 I619 I6350 I639"),
    "acute_myocardial_infarction": ("41071 41011 41090", "I214 I2109 I213 I21A1"),
    "cardiac_dysrhythmias": ("42731 4271 4270", "I4891 I472 I471 R001"),
    "chronic_kidney_disease": ("5853 5856 585 V4511", "N183 N186 Z992"),
    "chronic_obstructive_pulmonary_disease": ("496 49121 4928", "J449 J441 J439 J479"),
    "complications_of_care": ("99731 9972 4582", "J95851 I97131 T814XXA"),
    "conduction_disorders": ("4260 4263 V4501", "I442 I447 Z950"),
    "congestive_heart_failure": ("4280 42823 39891", "I509 I5023 I0981"),
    "coronary_atherosclerosis": ("41401 412 4139 V4581", "I2510 I252 I209 Z951"),
    "diabetes_with_complications": ("25060 25040 25013", "E1140 E1122 E1010"),
    "diabetes_without_complication": ("25000 25001 79029", "E119 E109 R7303"),
    "lipid_disorders": ("2724 2720 2722", "E785 E7800 E782"),
    "essential_hypertension": ("4019 4011", "I10"),
    "fluid_electrolyte_disorders": ("2762 2761 27651 2767", "E872 E871 E860 E875"),
    "gastrointestinal_hemorrhage": ("5789 5693 53140", "K922 K625 K254"),
    "hypertension_with_complications": ("40390 40291 4010", "I120 I110 I130 I160"),
    "other_liver_diseases": ("5715 5722 570", "K7460 K7290 K766"),
    "other_lower_respiratory_disease": ("515 514 78609", "J8410 J811 R0600"),
    "other_upper_respiratory_disease": ("5192 4789 7847", "R040 J386 J302"),
    "pleurisy_pneumothorax_collapse": ("5119 5180 5128", "J90 J9811 J939"),
    "pneumonia": ("486 48241 481", "J189 J15211 J13"),
    "respiratory_failure": ("51881 51882 7991", "J9601 J80 R092"),
    "septicemia": ("0389 99592 7907", "A419 A4151 R6520"),
    "shock": ("78552 78551", "R6521 R570"),
}
ELSEWHERE = ("5990 2851 V5861 E8788 389 0019 42741 5070", "N390 D62 Z7901 Y838 I469 J690")


def frame(codes: list[str], version: object) -> pd.DataFrame:
    """Each code as an admission of its own."""
    return pd.DataFrame({"hadm_id": [f"{i:04d}" for i in range(len(codes))], "icd_code": codes, "icd_version": version})


def test_the_25_phenotypes_are_those_of_the_benchmark() -> None:
    assert len(PHENOTYPES) == len(set(PHENOTYPES)) == 25 == len(set(TITLES.values()))
    assert list(TITLES.values()) == sorted(TITLES.values()), "the benchmark orders its columns by title"
    assert set(WELL_KNOWN) == set(PHENOTYPES)


@pytest.mark.parametrize("version", [9, 10])
@pytest.mark.parametrize("name", PHENOTYPES)
def test_well_known_codes_have_this_phenotype_alone(name: str, version: int) -> None:
    codes = WELL_KNOWN[name][version == 10].split()
    table = phenotypes(frame(codes, version))
    assert list(table.columns) == list(PHENOTYPES)
    assert set(map(str, table.dtypes)) == {"bool"}
    assert table[name].all()
    assert (table.sum(axis=1) == 1).all()
    assert unknown_codes(frame(codes, version)) == {}


@pytest.mark.parametrize("version", [9, 10])
def test_known_codes_of_other_categories_have_none(version: int) -> None:
    codes = ELSEWHERE[version == 10].split()
    assert not phenotypes(frame(codes, version)).any(axis=None)
    assert unknown_codes(frame(codes, version)) == {}


def test_codes_of_an_admission_add_up() -> None:
    rows = pd.DataFrame(
        {
            "hadm_id": ["200002", "100001", "200002", "200002", "300003"],
            "icd_code": ["I10", "4019", "25000", "R6521", "XYZ"],
            "icd_version": ["10", "9", "9", "10", "10"],
        },
        index=[7, 7, 3, 1, 0],  # an index that repeats must not mix rows
    )
    table = phenotypes(rows)
    assert table.index.tolist() == ["100001", "200002", "300003"]
    found = {hadm: [name for name in PHENOTYPES if row[name]] for hadm, row in table.iterrows()}
    assert found == {
        "100001": ["essential_hypertension"],
        "200002": ["diabetes_without_complication", "essential_hypertension", "shock"],
        "300003": [],
    }
    assert unknown_codes(rows) == {"XYZ": 1}


@pytest.mark.parametrize(
    ("code", "version", "name"),
    [
        ("038.9", 9, "septicemia"),
        ("38.9", 9, "septicemia"),  # a dot shows what a spreadsheet has cut off
        (" 0389 ", "9", "septicemia"),
        ("03 89", 9.0, "septicemia"),
        ("v45.11", 9, "chronic_kidney_disease"),
        ("i21.4", "10", "acute_myocardial_infarction"),
        ("R65.21 ", " 10", "shock"),
        ("I48.11", 10, "cardiac_dysrhythmias"),  # divided from I48.1 after the table was made
        ("N18.30", 10, "chronic_kidney_disease"),
    ],
)
def test_spellings(code: str, version: object, name: str) -> None:
    table = phenotypes(frame([code], version))
    assert [column for column in PHENOTYPES if table[column].iloc[0]] == [name]


@pytest.mark.parametrize("code", ["", "E1", "E11", "R65.2", "ZZZ", "38"])
def test_what_cannot_be_placed_is_unknown(code: str) -> None:
    rows = pd.concat([frame([code], 10), frame(["I10"], 10)], ignore_index=True)
    assert unknown_codes(rows) == {code: 1}
    assert phenotypes(frame([code], 10)).sum(axis=None) == 0


def test_a_heading_says_nothing_about_the_codes_below_it_and_an_absent_code_nothing_at_all() -> None:
    # 789.5 (ascites, until 2007) is a liver disease; of its later parts 789.59 is, 789.51 (malignant) is not.
    table = phenotypes(frame(["7895", "78959", "78951"], 9))
    assert table["other_liver_diseases"].tolist() == [True, True, False]
    rows = pd.DataFrame({"hadm_id": ["1"], "icd_code": [None], "icd_version": [9]})
    assert unknown_codes(rows) == {"": 1}
    assert phenotypes(rows).index.tolist() == ["1"]


def test_no_rows_give_an_empty_table() -> None:
    table = phenotypes(frame([], 9))
    assert len(table) == 0
    assert list(table.columns) == list(PHENOTYPES)


def test_the_same_code_means_different_things_in_the_two_versions() -> None:
    assert phenotypes(frame(["V420"], 9))["chronic_kidney_disease"].all()  # kidney transplant; in ICD-10 a car accident
    assert not phenotypes(frame(["V420XXA"], 10)).any(axis=None)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (pd.DataFrame({"hadm_id": ["1"], "icd_code": ["I10"]}), "column 'icd_version' is missing"),
        (pd.DataFrame({"hadm_id": ["1"], "icd_code": [389], "icd_version": [9]}), "holds numbers, expected text"),
        (pd.DataFrame({"hadm_id": ["1"], "icd_code": ["I10"], "icd_version": ["eleven\n11"]}), "icd_version 'eleven 11', expected 9 or 10"),
    ],
)
def test_wrong_tables_are_refused_in_one_line(rows: pd.DataFrame, says: str) -> None:
    with pytest.raises(DataError) as caught:
        phenotypes(rows)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def read_demo(folder: Path, name: str) -> pd.DataFrame:
    """Diagnoses of a demo with the long title of every code."""
    if name == "mimic3_demo":
        rows = pd.read_csv(folder / name / "DIAGNOSES_ICD.csv.gz", dtype=str).rename(columns=str.lower)
        titles = pd.read_csv(folder / name / "D_ICD_DIAGNOSES.csv.gz", dtype=str).rename(columns=str.lower)
        rows, titles = (t.rename(columns={"icd9_code": "icd_code"}).assign(icd_version="9") for t in (rows, titles))
    else:
        rows = pd.read_csv(folder / name / "hosp" / "diagnoses_icd.csv.gz", dtype=str)
        titles = pd.read_csv(folder / name / "hosp" / "d_icd_diagnoses.csv.gz", dtype=str)
    return rows.merge(titles[["icd_code", "icd_version", "long_title"]], how="left", on=["icd_code", "icd_version"])


# What version and title of a code must say, and must not say, for the phenotype; read off the titles alone.
BY_TITLE = {
    "acute_myocardial_infarction": (r"myocardial infarction|subendocardial infarction", r"old|history|not resulting"),
    "essential_hypertension": (r"essential.*hypertension", r"malignant"),
    "shock": (r"cardiogenic shock|septic shock|hypovolemic shock|other shock", r"without septic shock"),
    "acute_renal_failure": (r"acute kidney failure", r"history"),
    "congestive_heart_failure": (r"heart failure", r"hypertensive|postprocedural|postoperative"),
    "septicemia": (r"sepsis|septicemia|^9 bacteremia", r"with septic shock|newborn|history"),  # in ICD-10 bacteremia is a finding
    "respiratory_failure": (
        r"respiratory failure|respiratory arrest|other pulmonary insufficiency, not|dependence on .*(?:respirator|supplemental oxygen)",
        r"newborn",
    ),
}


@pytest.mark.real
@pytest.mark.parametrize("name", ["mimic3_demo", "mimic4_demo"])
def test_the_demos_agree_with_a_count_by_title(real_data: Path, name: str) -> None:
    rows = read_demo(real_data, name)
    table = phenotypes(rows)
    assert set(table.index) == set(rows["hadm_id"])
    assert unknown_codes(rows) == {}
    titles = rows["icd_version"] + " " + rows["long_title"].fillna("").str.lower()
    for phenotype, (says, says_not) in BY_TITLE.items():
        expected = set(rows["hadm_id"][titles.str.contains(says) & ~titles.str.contains(says_not)])
        # Four-digit codes of earlier years have no title in D_ICD_DIAGNOSES; they may add admissions, never take one away.
        untitled = set(rows["hadm_id"][rows["long_title"].isna()])
        found = set(table.index[table[phenotype]])
        assert expected <= found, phenotype
        assert found - expected <= untitled, phenotype
        assert len(found) > 5
