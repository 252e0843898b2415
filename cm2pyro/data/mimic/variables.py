"""The 17 variables of mimic3-benchmarks: which items measure them, in what units, what is possible, and the codes of the categories.

The items are those of its item map, for CareVue (ids below 10,000), MetaVision and MIMIC-IV (220,000 and above) and the laboratory (50,000
to 53,000), with these differences, all of them on purpose:

* left out: glucose and pH of urine and of other body fluids (51478, 51491, 51094, 50831), which are other quantities;
* added: FiO2 set (190), the height and weight at admission of CareVue (920, 762), the manual right-arm diastolic pressure (227242, whose
  systolic partner is in the map) and the manual mean (443), capillary refill of MetaVision (223951, 224308), and whole-blood and
  chemistry glucose of MIMIC-IV (52027, 52569).

Items are listed in order of preference. Where several were charted at the same second, the first one counts: the total respiratory rate
before the spontaneous breaths of a ventilated patient, an arterial pressure before a cuff's.
"""

import re
from collections.abc import Mapping

__all__ = ["CATEGORIES", "ITEMS", "LABS", "RANGES", "UNITS", "VARIABLES", "code_of", "plain_unit"]

# An item is `id` or `id:unit`, the unit where the row itself names none.
_ITEMS = {
    "capillary_refill_rate": "223951 224308 115 8377 3348",
    "diastolic_blood_pressure": "220051 8368 225310 8555 220180 8441 8502 8440 8503 8506 8504 8507 224643 227242",
    "fraction_inspired_oxygen": "223835 3420 190 189 3422 727",
    "gcs_eye": "220739 184",
    "gcs_motor": "223901 454",
    "gcs_total": "198",
    "gcs_verbal": "223900 723",
    "glucose": "50931 50809 52569 52027 220621 226537 811 1529 3745 225664 807",
    "heart_rate": "220045 211",
    "height": "226730 226707:in 1394:in 920:in",
    "mean_blood_pressure": "220052 52 225312 6702 224322 224 220181 456 3312 443 3314 3320 3316 3322",
    "oxygen_saturation": "220277 646 834 220227 50817 8498",
    "respiratory_rate": "220210 618 3603 224690 615 224689 614 224422 651",
    "systolic_blood_pressure": "220050 51 225309 6701 220179 455 3313 442 3315 3321 3317 3323 224167 227243",
    "temperature": "223762:c 676:c 677:c 223761:f 678:f 679:f 3654:f 3655:c",
    "weight": "224639 763 3580 3693 226512 762 226531:lb 3581:lb 3582:oz",
    "ph": "50820 223830 780 1126 4753 220274 860 3839 4202 1673",
}
VARIABLES: tuple[str, ...] = tuple(_ITEMS)

# Item id -> (variable, preference, unit).
ITEMS: dict[int, tuple[str, int, str]] = {
    int(item.partition(":")[0]): (variable, rank, item.partition(":")[2])
    for variable, items in _ITEMS.items()
    for rank, item in enumerate(items.split())
}
LABS = frozenset(item for item in ITEMS if 50_000 <= item < 53_000)

# Unit as `plain_unit` leaves it -> (a, b): the value in the variable's own unit is a * value + b. A unit that is not here is not guessed.
_SAME = (1.0, 0.0)
_PRESSURE = {"": _SAME, "mmhg": _SAME}
UNITS: dict[str, dict[str, tuple[float, float]]] = {
    "diastolic_blood_pressure": _PRESSURE,
    "fraction_inspired_oxygen": {"": _SAME, "%": _SAME, "decfrc": _SAME, "torr": _SAME},  # percent: by value, see values.py
    "glucose": {"": _SAME, "mg/dl": _SAME, "mmol/l": (18.016, 0.0)},
    "heart_rate": {"": _SAME, "bpm": _SAME},
    "height": {"": _SAME, "cm": _SAME, "in": (2.54, 0.0), "inch": (2.54, 0.0), "inches": (2.54, 0.0), "m": (100.0, 0.0)},
    "mean_blood_pressure": _PRESSURE,
    "oxygen_saturation": {"": _SAME, "%": _SAME},
    "respiratory_rate": {"": _SAME, "bpm": _SAME, "insp/min": _SAME},
    "systolic_blood_pressure": _PRESSURE,
    "temperature": dict.fromkeys(("", "c", "degc"), _SAME) | dict.fromkeys(("f", "degf"), (5 / 9, -160 / 9)),
    "weight": {"": _SAME, "kg": _SAME, "oz": (0.028349523125, 0.0)} | dict.fromkeys(("lb", "lbs"), (0.45359237, 0.0)),
    "ph": {"": _SAME, "units": _SAME, "ph": _SAME},
}

# Lowest and highest value that a living adult can show, both included, in the variable's own unit.
RANGES: dict[str, tuple[float, float]] = {
    "diastolic_blood_pressure": (5, 250),  # mmHg
    "fraction_inspired_oxygen": (0.2, 1.0),  # fraction
    "glucose": (5, 3000),  # mg/dL
    "heart_rate": (10, 300),  # beats/min
    "height": (100, 250),  # cm
    "mean_blood_pressure": (10, 300),  # mmHg
    "oxygen_saturation": (10, 100),  # %
    "respiratory_rate": (0, 120),  # breaths/min; 0 is apnoea
    "systolic_blood_pressure": (20, 350),  # mmHg
    "temperature": (25, 45),  # Celsius
    "weight": (20, 350),  # kg
    "ph": (6.5, 8.0),
}

# The values of the categorical variables in the order of the discretizer of mimic3-benchmarks; the code of a value is its place.
# CareVue writes "4 Spontaneously" and MetaVision "Spontaneously" for the same answer; the lists keep both, and so do the codes.
_VALUES = {
    "capillary_refill_rate": "0.0|1.0",
    "gcs_eye": "To Pain|3 To speech|1 No Response|4 Spontaneously|None|To Speech|Spontaneously|2 To pain",
    "gcs_motor": "1 No Response|3 Abnorm flexion|Abnormal extension|No response|4 Flex-withdraws|Localizes Pain|Flex-withdraws|"
    "Obeys Commands|Abnormal Flexion|6 Obeys Commands|5 Localizes Pain|2 Abnorm extensn",
    "gcs_total": "11|10|13|12|15|14|3|5|4|7|6|9|8",
    "gcs_verbal": "1 No Response|No Response|Confused|Inappropriate Words|Oriented|No Response-ETT|5 Oriented|Incomprehensible sounds|"
    "1.0 ET/Trach|4 Confused|2 Incomp sounds|3 Inapprop words",
}
CATEGORIES: dict[str, tuple[str, ...]] = {name: tuple(values.split("|")) for name, values in _VALUES.items()}
_REFILL = {"normal <3 secs": 0, "normal <3 seconds": 0, "brisk": 0, "abnormal >3 secs": 1, "abnormal >3 seconds": 1, "delayed": 1}


def plain_unit(text: str) -> str:
    """A unit without case, dots, spaces and damaged degree signs: '?C' and '°C' both are 'c', 'Deg. C' is 'degc', and 'None' is none."""
    unit = re.sub(r"[^a-z%/]", "", text.lower())
    return "" if unit == "none" else unit


def _key(text: str) -> str:
    return " ".join(text.lower().split())


def _by_number(values: tuple[str, ...]) -> Mapping[float, int]:
    """Score -> code of the value that begins with it; "1.0 ET/Trach" is no plain 1."""
    found = {}
    for code, value in enumerate(values):
        head = value.split(" ")[0]
        if head.isdigit():
            found[float(head)] = code
    return found


_TEXT = {name: {_key(value): code for code, value in enumerate(values)} for name, values in CATEGORIES.items()}
_TEXT["capillary_refill_rate"] |= _REFILL
_NUMBER = {name: _by_number(values) for name, values in CATEGORIES.items()} | {"capillary_refill_rate": {0.0: 0, 1.0: 1}}


def code_of(variable: str, text: str, number: float) -> int | None:
    """Code of a categorical value: by its text, else by its number (a score of 4 is the CareVue wording "4 Spontaneously"), else None."""
    code = _TEXT[variable].get(_key(text))
    if code is not None:
        return code
    try:
        return _NUMBER[variable].get(number if number == number else float(text))
    except ValueError:
        return None
