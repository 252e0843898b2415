"""No listed name survives, in whatever spelling, and nothing else is touched."""

import re
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2pyro.data.covid_cxr_blanking import NAMES, TOKEN, blank

# Spellings that the rule speaks of. Between two parts of a name: nothing, blanks, and every dash that texts hold.
JOINTS = ["", " ", "-", "\u2010", "\u2011", "\u2013", "\u2014", "\u2212", "_", "/", ". ", " - ", "\u00a0", "\n"]
LETTERS = [
    str,
    str.upper,
    str.title,
    lambda t: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in t),  # wide letters
    lambda t: "\u00ad".join(t),  # soft hyphens
    lambda t: "\u200b".join(t),  # invisible blanks
    lambda t: unicodedata.normalize("NFC", "".join(c + "\u0301" if c in "aeiou" else c for c in t)),
    lambda t: "".join(c + "\u0301" for c in t),
]
ENDINGS = ["s", "like", "19", "al", "\u00e4"]


def words_of(text: str) -> list[str]:
    return text.split()


PLAIN = words_of(
    "fever cough covered candidate mersey virtually tbsp pneumothorax pneumomediastinum bacon influx aspire rnase dnase legion legal cocci "
    "hivernal sarsaparilla multi-lobar ground-glass x-ray c-reactive saturation, (85%) 38.6\u00b0C <250 \u00b5g opacities. lobe; "
    "dyspn\u0153a na\u00efve \u03b1-1 fluid agricultural"
)


@st.composite
def spelled(draw: st.DrawFn) -> str:
    """A listed name in one of its spellings, with an ending where the list allows one."""
    name = draw(st.sampled_from(NAMES))
    parts = name.rstrip("*").split()
    written = parts[0] + "".join(draw(st.sampled_from(JOINTS)) + part for part in parts[1:])
    if name.endswith("*"):
        written += draw(st.sampled_from(["", *ENDINGS]))
    return draw(st.sampled_from(LETTERS))(written)


@given(spelled())
def test_every_spelling_of_every_name_is_blanked_whole(name: str) -> None:
    assert blank(f"Fever, {name}: opacities") == (f"Fever, {TOKEN}: opacities", 1)
    assert blank(name) == (TOKEN, 1)
    assert blank(f"({name})") == (f"({TOKEN})", 1)


@pytest.mark.parametrize("name", NAMES)
def test_each_listed_name_is_blanked(name: str) -> None:
    """Sampling may miss one; this does not."""
    for joint in JOINTS:
        text = name.rstrip("*").replace(" ", joint)
        for written in (text, text.upper(), text.capitalize()):
            assert blank(f"with {written}.") == (f"with {TOKEN}.", 1), written


@given(st.lists(st.one_of(st.sampled_from(PLAIN), st.tuples(spelled())), max_size=12))
def test_other_words_stay_in_their_order(words: list[str | tuple[str]]) -> None:
    """A name between bars: a run of names may become one token, what stands outside the bars may not change.

    Two bars: with one there are three signs between names, as many as a space inside a name may stand for.
    """
    text = " || ".join(word if isinstance(word, str) else word[0] for word in words)
    wanted = " || ".join(word if isinstance(word, str) else TOKEN for word in words)
    assert blank(text) == (wanted, sum(isinstance(word, tuple) for word in words))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_a_text_without_tokens_is_unchanged_and_blanking_twice_is_blanking_once(text: str) -> None:
    blanked, count = blank(text)
    assert (blanked == text) == (count == 0)
    assert blank(blanked)[0] == blanked
    # What is left is the text with pieces cut out, in order.
    kept = [re.escape(piece) for piece in blanked.split(TOKEN)] if count else [re.escape(text)]
    assert re.fullmatch(".*".join(kept), text, re.DOTALL)


@pytest.mark.parametrize(
    ("note", "wanted"),
    [
        ("covid-19 positive", f"{TOKEN} positive"),
        ("SARS-CoV-2 RNA was detected", f"{TOKEN} was detected"),
        ("COVID-19 pneumonia, viral", f"{TOKEN}, {TOKEN}"),
        ("pneumocystis carinii pneumonia (PCP)", f"{TOKEN} ({TOKEN})"),
        ("a COVID-positive co-worker", f"a {TOKEN}-positive co-worker"),
        ("Coronavirus disease 2019 pneumonia. Initial", f"{TOKEN}. Initial"),
        ("real-time reverse-transcriptase-polymerase chain reaction was negative", f"{TOKEN} was negative"),
        ("isolated Legionella pneumophila", f"isolated {TOKEN}"),
        ("Klebsiella's", f"{TOKEN}'s"),
        ("E. coli, E.Coli and ecoli", f"{TOKEN}, {TOKEN} and {TOKEN}"),
        ("ARDS / Acute Respiratory Distress Syndrome", TOKEN),
        ("acute respiratory distress; respiratory rate 25", "acute respiratory distress; respiratory rate 25"),
        ("pneumothorax, pneumomediastinum", "pneumothorax, pneumomediastinum"),
        ("", ""),
    ],
)
def test_examples(note: str, wanted: str) -> None:
    assert blank(note)[0] == wanted


def test_the_findings_of_the_collection_are_listed() -> None:
    """All that its scheme of findings knows, also those that the part at hand lacks."""
    findings = words_of(
        "COVID-19 SARS MERS-CoV Influenza H1N1 Herpes Varicella Pneumonia Viral Bacterial Fungal Streptococcus Klebsiella Chlamydophila "
        "Legionella E.Coli Mycoplasma Nocardia Staphylococcus MRSA Aspergillosis Pneumocystis Lipoid Aspiration Tuberculosis ARDS"
    )
    for finding in findings:
        assert blank(finding) == (TOKEN, 1), finding


@pytest.mark.real
def test_no_name_survives_in_the_real_notes(real_data: Path) -> None:
    """Another route: letters and digits alone, no patterns."""
    stems = words_of(
        "covid corona ncov sarscov influenza varicella pneumocyst jirovec carinii strepto klebsiel legionel mycoplasm chlamyd pneumoni "
        "lipoid aspirat bacteri viral virus fungal tubercul rtpcr polymerase transcript swab antigen serolog syphilis candidia immunodef "
        "antiretro distresssyndrome escherichia pneumophila"
    )
    words = {"ards", "pcr", "pcp", "hiv", "aids", "rna", "dna", "flu", "sars", "mers", "ovid", "rsv", "tb", "culture", "cultures", "coli"}
    notes = pd.read_csv(real_data / "covid_cxr" / "metadata.csv", dtype=str, keep_default_na=False)["clinical_notes"]
    raw = " ".join(notes).lower()
    assert sum(raw.count(stem) for stem in ("covid", "pneumoni", "legionel")) > 100, "the notes name diseases, or this test proves nothing"
    for note in notes:
        left = blank(note)[0].replace(TOKEN, " # ").lower()
        squeezed = re.sub(r"[^a-z0-9#]", "", left)
        assert not [stem for stem in stems if stem in squeezed], left
        assert not words & set(re.findall("[a-z0-9]+", left)), left
