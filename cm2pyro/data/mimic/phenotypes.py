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

__all__ = ["PHENOTYPES", "TITLES", "phenotypes", "unknown_codes"]

# HCUP's titles, which are the columns of the benchmark's listfile.csv, and the numbers of the categories.
TITLES: dict[str, str] = {
    "acute_renal_failure": "Acute and unspecified renal failure",  # 157
    "acute_cerebrovascular_disease": "Acute cerebrovascular disease",  # 109
    "acute_myocardial_infarction": "Acute myocardial infarction",  # 100
    "cardiac_dysrhythmias": "Cardiac dysrhythmias",  # 106
    "chronic_kidney_disease": "Chronic kidney disease",  # 158
    "chronic_obstructive_pulmonary_disease": "Chronic obstructive pulmonary disease and bronchiectasis",  # 127
    "complications_of_care": "Complications of surgical procedures or medical care",  # 238
    "conduction_disorders": "Conduction disorders",  # 105
    "congestive_heart_failure": "Congestive heart failure; nonhypertensive",  # 108
    "coronary_atherosclerosis": "Coronary atherosclerosis and other heart disease",  # 101
    "diabetes_with_complications": "Diabetes mellitus with complications",  # 50
    "diabetes_without_complication": "Diabetes mellitus without complication",  # 49
    "lipid_disorders": "Disorders of lipid metabolism",  # 53
    "essential_hypertension": "Essential hypertension",  # 98
    "fluid_electrolyte_disorders": "Fluid and electrolyte disorders",  # 55
    "gastrointestinal_hemorrhage": "Gastrointestinal hemorrhage",  # 153
    "hypertension_with_complications": "Hypertension with complications and secondary hypertension",  # 99
    "other_liver_diseases": "Other liver diseases",  # 151
    "other_lower_respiratory_disease": "Other lower respiratory disease",  # 133
    "other_upper_respiratory_disease": "Other upper respiratory disease",  # 134
    "pleurisy_pneumothorax_collapse": "Pleurisy; pneumothorax; pulmonary collapse",  # 130
    "pneumonia": "Pneumonia (except that caused by tuberculosis or sexually transmitted disease)",  # 122
    "respiratory_failure": "Respiratory failure; insufficiency; arrest (adult)",  # 131
    "septicemia": "Septicemia (except in labor)",  # 2
    "shock": "Shock",  # 249
}
PHENOTYPES: tuple[str, ...] = tuple(TITLES)
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
