"""The 25 phenotypes of mimic3-benchmarks, from the diagnoses of an admission.

A phenotype is a category of HCUP's Clinical Classifications Software (AHRQ, public domain). ICD-9-CM codes go by CCS for ICD-9-CM
(the last revision, 2015), ICD-10-CM codes by HCUP's own CCS for ICD-10-CM (2019.1), whose categories have the same numbers and titles.
A general equivalence mapping back to ICD-9 would be the alternative; it is approximate and often one to many, and somebody would have to
choose among the targets. The two tables still differ where the codes do: septic shock is one code in ICD-10 (R65.21, shock), while ICD-9
codes severe sepsis beside it; and bacteremia is septicemia in ICD-9 (790.7), a laboratory finding in ICD-10 (R78.81).
"""

import json
from functools import cache
from importlib.resources import files

import pandas as pd

from cm2pyro.errors import DataError
from cm2pyro.registry import one_line

__all__ = ["CCS", "KINDS", "PHENOTYPES", "TITLES", "phenotypes", "unknown_codes"]

_TABLE = (
    ("acute_renal_failure", 157, "acute", "Acute and unspecified renal failure"),
    ("acute_cerebrovascular_disease", 109, "acute", "Acute cerebrovascular disease"),
    ("acute_myocardial_infarction", 100, "acute", "Acute myocardial infarction"),
    ("cardiac_dysrhythmias", 106, "mixed", "Cardiac dysrhythmias"),
    ("chronic_kidney_disease", 158, "chronic", "Chronic kidney disease"),
    ("chronic_obstructive_pulmonary_disease", 127, "chronic", "Chronic obstructive pulmonary disease and bronchiectasis"),
    ("complications_of_care", 238, "acute", "Complications of surgical procedures or medical care"),
    ("conduction_disorders", 105, "mixed", "Conduction disorders"),
    ("congestive_heart_failure", 108, "mixed", "Congestive heart failure; nonhypertensive"),
    ("coronary_atherosclerosis", 101, "chronic", "Coronary atherosclerosis and other heart disease"),
    ("diabetes_with_complications", 50, "mixed", "Diabetes mellitus with complications"),
    ("diabetes_without_complication", 49, "chronic", "Diabetes mellitus without complication"),
    ("lipid_disorders", 53, "chronic", "Disorders of lipid metabolism"),
    ("essential_hypertension", 98, "chronic", "Essential hypertension"),
    ("fluid_electrolyte_disorders", 55, "acute", "Fluid and electrolyte disorders"),
    ("gastrointestinal_hemorrhage", 153, "acute", "Gastrointestinal hemorrhage"),
    ("hypertension_with_complications", 99, "chronic", "Hypertension with complications and secondary hypertension"),
    ("other_liver_diseases", 151, "mixed", "Other liver diseases"),
    ("other_lower_respiratory_disease", 133, "acute", "Other lower respiratory disease"),
    ("other_upper_respiratory_disease", 134, "acute", "Other upper respiratory disease"),
    ("pleurisy_pneumothorax_collapse", 130, "acute", "Pleurisy; pneumothorax; pulmonary collapse"),
    ("pneumonia", 122, "acute", "Pneumonia (except that caused by tuberculosis or sexually transmitted disease)"),
    ("respiratory_failure", 131, "acute", "Respiratory failure; insufficiency; arrest (adult)"),
    ("septicemia", 2, "acute", "Septicemia (except in labor)"),
    ("shock", 249, "acute", "Shock"),
)
PHENOTYPES: tuple[str, ...] = tuple(row[0] for row in _TABLE)
CCS: dict[str, int] = {row[0]: row[1] for row in _TABLE}
KINDS: dict[str, str] = {row[0]: row[2] for row in _TABLE}  # acute | chronic | mixed, as the benchmark reports them
TITLES: dict[str, str] = {row[0]: row[3] for row in _TABLE}  # HCUP's titles, the columns of the benchmark's listfile.csv
_NONE = "none"  # a known code of another category


def phenotypes(diagnoses: pd.DataFrame) -> pd.DataFrame:
    """Which phenotypes an admission is coded with.

    Args:
        diagnoses: a row a code, in any order, with the columns `hadm_id`, `icd_code` (text: leading zeros carry meaning; dots, spaces
            and small letters do no harm) and `icd_version` (9 or 10).

    Returns:
        Index `hadm_id` (sorted, each admission of `diagnoses` once), one bool column for each of `PHENOTYPES`. An admission with no row
        in `diagnoses` is not in it; one whose codes are all unknown is False throughout, see `unknown_codes`.

    Raises:
        DataError: a column is absent, the codes are numbers, or a version is neither 9 nor 10.
    """
    found = _lookup(diagnoses)
    frame = pd.DataFrame({name: found == name for name in PHENOTYPES}, index=diagnoses.index)
    return frame.groupby(diagnoses["hadm_id"], sort=True).any()


def unknown_codes(diagnoses: pd.DataFrame) -> dict[str, int]:
    """Number of rows by code ('' where it is absent) for the codes that CCS does not place; arguments and errors as in `phenotypes`."""
    codes = diagnoses["icd_code"].fillna("").astype(str).str.strip()[_lookup(diagnoses) == ""]
    return {str(code): int(count) for code, count in codes.value_counts().sort_index().items()}


def _lookup(diagnoses: pd.DataFrame) -> pd.Series:
    """The phenotype of every row, `_NONE` for another category, '' for an unknown code."""
    for column in ("hadm_id", "icd_code", "icd_version"):
        if column not in diagnoses:
            raise DataError(f"diagnoses: column '{column}' is missing; expected hadm_id, icd_code and icd_version; add it")
    if len(diagnoses) and pd.api.types.is_numeric_dtype(diagnoses["icd_code"]):
        raise DataError(
            "diagnoses: column 'icd_code' holds numbers, expected text (0389 is septicemia, 389 hearing loss); read the column as text"
        )
    versions = diagnoses["icd_version"].astype(str).str.strip().str.removesuffix(".0")
    for version in versions[~versions.isin(["9", "10"])].head(1):
        raise DataError(f"diagnoses: found icd_version '{one_line(version, 30)}', expected 9 or 10; correct the row or drop it")
    codes = diagnoses["icd_code"].fillna("").astype(str)
    pairs = pd.DataFrame({"version": versions, "code": codes})
    known = {(v, c): _place(v, c) for v, c in pairs.drop_duplicates().itertuples(index=False)}
    return pd.Series([known[pair] for pair in zip(versions, codes, strict=True)], index=diagnoses.index, dtype=object)


def _place(version: str, code: str) -> str:
    stem, dot, rest = "".join(code.split()).upper().partition(".")
    if dot and version == "9":
        stem = stem.zfill(3)  # a dot shows how many leading zeros a number has lost
    code = stem + rest
    table = _prefixes(version)
    if f"{code}=" in table:
        return table[f"{code}="]
    return next((table[code[:n]] for n in range(3, len(code) + 1) if code[:n] in table), "")


@cache
def _prefixes(version: str) -> dict[str, str]:
    """Prefix of codes -> phenotype or `_NONE`; `=` ends a code that says nothing about longer ones. No prefix begins another.

    A prefix of at least three characters stands for all codes of the CCS table that begin with it, so that a code which a later release
    of ICD divides keeps its category; where the codes below a heading differ, the heading alone is unknown.
    """
    content = json.loads(files(__package__).joinpath("phenotypes.json").read_text(encoding="utf-8"))
    return {prefix: name for name, lines in content[f"icd{version}"].items() for line in lines for prefix in line.split()}
