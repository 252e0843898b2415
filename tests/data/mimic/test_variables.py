"""Items, units and codes of the 17 variables, held against facts stated here independently."""

import math
from collections import Counter

import numpy as np
import pytest

from cm2pyro.data.mimic.values import Counts, convert
from cm2pyro.data.mimic.variables import CATEGORIES, ITEMS, LABS, RANGES, UNITS, VARIABLES, code_of, plain_unit


def one(item: int, text: str = "", number: float = math.nan, unit: str = "") -> tuple[float | None, Counts]:
    """The value of one row, None where it has none, and the counts."""
    counts = Counts()
    cells = (np.array([item]), np.array([text], dtype=object), np.array([number], dtype=float), np.array([unit], dtype=object))
    value, good = convert(*cells, counts)
    return (float(value[0]) if good[0] else None), counts


def test_the_17_variables_make_76_columns() -> None:
    assert len(VARIABLES) == 17
    one_hot = sum(len(values) for values in CATEGORIES.values())
    assert one_hot == 47
    assert one_hot + (17 - len(CATEGORIES)) + 17 == 76
    assert {name: len(values) for name, values in CATEGORIES.items()} == {
        "capillary_refill_rate": 2,
        "gcs_eye": 8,
        "gcs_motor": 12,
        "gcs_total": 13,
        "gcs_verbal": 12,
    }
    assert set(RANGES) == set(UNITS) == set(VARIABLES) - set(CATEGORIES)
    assert all(len(set(values)) == len(values) for values in CATEGORIES.values())


def test_an_item_measures_one_variable() -> None:
    # Of each variable, an item of CareVue, one of MetaVision and one of the laboratory, by their labels in D_ITEMS and D_LABITEMS.
    labels = {
        211: "heart_rate", 220045: "heart_rate", 51: "systolic_blood_pressure", 220179: "systolic_blood_pressure",
        8441: "diastolic_blood_pressure", 220051: "diastolic_blood_pressure", 456: "mean_blood_pressure", 220052: "mean_blood_pressure",
        184: "gcs_eye", 220739: "gcs_eye", 454: "gcs_motor", 223901: "gcs_motor", 723: "gcs_verbal", 223900: "gcs_verbal",
        198: "gcs_total", 50931: "glucose", 50809: "glucose", 807: "glucose", 220621: "glucose", 50820: "ph", 780: "ph", 223830: "ph",
        646: "oxygen_saturation", 220277: "oxygen_saturation", 50817: "oxygen_saturation", 618: "respiratory_rate",
        220210: "respiratory_rate", 678: "temperature", 223762: "temperature", 763: "weight", 226512: "weight", 226707: "height",
        920: "height", 190: "fraction_inspired_oxygen", 223835: "fraction_inspired_oxygen", 3348: "capillary_refill_rate",
    }  # fmt: skip
    assert {item: ITEMS[item][0] for item in labels} == labels
    assert not {51478, 51491, 51094, 50831} & set(ITEMS), "of urine and other fluids"
    assert {50931, 50809, 50820, 50817, 52027, 52569} == LABS
    assert Counter(name for name, _, _ in ITEMS.values()).keys() == set(VARIABLES)
    assert all(unit in UNITS[name] for name, _, unit in ITEMS.values() if unit)


@pytest.mark.parametrize(
    ("item", "number", "unit", "value"),
    [
        (678, 98.6, "Deg. F", 37.0),
        (223761, 104.0, "?F", 40.0),
        (223761, 104.0, "", 40.0),  # the item says it
        (223762, 36.5, "°C", 36.5),
        (223762, 99.5, "°C", 37.5),  # Fahrenheit in a Celsius field
        (676, 36.5, "Deg. C", 36.5),
        (226707, 70.0, "Inch", 177.8),
        (920, 70.0, "inches", 177.8),
        (226730, 178.0, "cm", 178.0),
        (226531, 150.0, "", 68.0388555),
        (226512, 70.0, "kg", 70.0),
        (224639, 150.0, "lbs", 68.0388555),  # the row's unit before the item's
        (3582, 2400.0, "oz", 68.0388555),
        (223835, 50.0, "", 0.5),
        (223835, 100.0, "%", 1.0),
        (190, 0.21, "torr", 0.21),
        (50931, 5.0, "mmol/L", 90.08),
        (50931, 90.0, "mg/dL", 90.0),
        (646, 0.95, "%", 95.0),
        (646, 95.0, "%", 95.0),
        (220045, 70.0, "bpm", 70.0),
        (220210, 16.0, "insp/min", 16.0),
        (618, 0.0, "BPM", 0.0),
        (50820, 7.4, "UNITS", 7.4),
        (220179, 120.0, "mmHg", 120.0),
    ],
)
def test_numbers_come_in_the_variables_own_unit(item: int, number: float, unit: str, value: float) -> None:
    found, counts = one(item, str(number), number, unit)
    assert found == pytest.approx(value, abs=1e-9)
    assert sum(counts.dropped.values()) == 0


@pytest.mark.parametrize(
    ("item", "text", "number", "unit", "reason"),
    [
        (220045, "0", 0.0, "bpm", "impossible"),
        (220179, "11647", 11647.0, "mmHg", "impossible"),
        (223835, "5", 5.0, "", "impossible"),  # 5 % is below room air, and 5 is no fraction
        (190, "60", 60.0, "torr", "unit"),
        (220045, "70", 70.0, "mmHg", "unit"),
        (678, "98.6", 98.6, "K", "unit"),
        (50809, "GREATER THAN 500", math.nan, "mg/dL", "unreadable"),
        (780, ".", math.nan, "", "unreadable"),
        (780, "nan", math.nan, "", "unreadable"),
        (780, "inf", math.nan, "", "unreadable"),
        (184, "7", 7.0, "", "unreadable"),
        (198, "16", 16.0, "points", "unreadable"),
        (3348, "Other/Remarks", math.nan, "", "unreadable"),
    ],
)
def test_what_is_no_value_is_dropped_for_its_reason(item: int, text: str, number: float, unit: str, reason: str) -> None:
    found, counts = one(item, text, number, unit)
    assert found is None
    assert {name: count for name, count in counts.dropped.items() if count} == {reason: 1}


def test_a_plain_number_in_the_text_alone_counts() -> None:
    assert one(780, "7.31")[0] == 7.31


def test_every_value_of_the_discretizer_has_the_code_of_its_place() -> None:
    for variable, values in CATEGORIES.items():
        assert [code_of(variable, value, math.nan) for value in values] == list(range(len(values)))


@pytest.mark.parametrize(
    ("variable", "score", "wording"),
    [
        *[("gcs_eye", i + 1, text) for i, text in enumerate(["1 No Response", "2 To pain", "3 To speech", "4 Spontaneously"])],
        ("gcs_motor", 1, "1 No Response"),
        ("gcs_motor", 2, "2 Abnorm extensn"),
        ("gcs_motor", 3, "3 Abnorm flexion"),
        ("gcs_motor", 4, "4 Flex-withdraws"),
        ("gcs_motor", 5, "5 Localizes Pain"),
        ("gcs_motor", 6, "6 Obeys Commands"),
        ("gcs_verbal", 1, "1 No Response"),
        ("gcs_verbal", 2, "2 Incomp sounds"),
        ("gcs_verbal", 3, "3 Inapprop words"),
        ("gcs_verbal", 4, "4 Confused"),
        ("gcs_verbal", 5, "5 Oriented"),
        *[("gcs_total", score, str(score)) for score in range(3, 16)],
        ("capillary_refill_rate", 0, "0.0"),
        ("capillary_refill_rate", 1, "1.0"),
    ],
)
def test_a_score_alone_has_the_code_of_its_wording(variable: str, score: int, wording: str) -> None:
    code = code_of(variable, str(score), float(score))
    assert code is not None
    assert CATEGORIES[variable][code] == wording
    assert code_of(variable, str(score), math.nan) == code, "also where the number is in the text alone"


def test_words_win_over_the_score_and_may_be_written_otherwise() -> None:
    assert CATEGORIES["gcs_verbal"][code_of("gcs_verbal", "1.0 ET/Trach", 1.0)] == "1.0 ET/Trach"  # type: ignore[index]
    assert CATEGORIES["gcs_verbal"][code_of("gcs_verbal", "no response-ett ", 1.0)] == "No Response-ETT"  # type: ignore[index]
    assert CATEGORIES["gcs_eye"][code_of("gcs_eye", "None", 1.0)] == "None"  # type: ignore[index]
    for text, code in (("Normal <3 secs", 0), ("Normal <3 Seconds", 0), ("Brisk", 0), ("Abnormal >3 secs", 1), ("Delayed", 1)):
        assert code_of("capillary_refill_rate", text, math.nan) == code
    assert code_of("gcs_eye", "", math.nan) is None


def test_units_are_told_by_their_letters() -> None:
    assert {plain_unit(text) for text in ("?C", "°C", "C", "ºC ", "\ufffdC")} == {"c"}
    assert plain_unit("Deg. F") == "degf"
    assert plain_unit("mg/dL") == "mg/dl"
    assert plain_unit("None") == plain_unit("") == ""
