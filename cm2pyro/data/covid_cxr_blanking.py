"""Names of diseases, agents and tests that give the diagnosis away, and their removal from a note.

The rule: what names an infectious agent, an infection, a pneumonia or the distress syndrome, and a laboratory test that identifies an
agent, is replaced by one token. It is the same token for all of them, and generic words ("pneumonia", "viral") go too: a token that
stood for COVID-19 alone would say as much as the name. Symptoms, what the image shows and chronic diseases stay.

What still leaks, because no list of names can remove it: the writing style of each source, dates, travel and places ("Wuhan", "wet
market"), "endemic", "tested positive", drugs against one agent, CD4 counts, and the number of tokens.
"""

import re
import unicodedata

__all__ = ["NAMES", "TOKEN", "blank"]

TOKEN = "[blank]"

_CORONAVIRUSES = """
    covid 2019*, covid 19*, covid*, ovid, corona virus disease 2019, corona virus disease 19, corona virus disease*, corona virus*,
    corona, 2019 ncov*, ncov*, n cov, hcov*, cov 2, sars cov 2*, sars cov*, sars, severe acute respiratory syndrome*, mers cov*,
    mers, middle east respiratory syndrome*"""
_VIRUSES = """
    virus*, viral*, influenza*, parainfluenza*, swine flu, bird flu, flu, h1n1*, h5n1*, h7n9*, adenovir*, rhinovir*, enterovir*,
    metapneumovir*, hantavir*, respiratory syncytial vir*, rsv, cytomegalovir*, cmv, herpes*, hsv, hsv1, hsv2, varicella*, vzv,
    chicken pox, zoster, measles, human immunodeficiency vir*, hiv, hiv1, hiv2, aids, retrovir*, antiretrovir*, anti retrovir*,
    haart"""
_BACTERIA = """
    bacteri*, strepto*, pneumococc*, staphylo*, mrsa, mssa, klebsiell*, legionel*, legionnaire*, e coli, escherichia*, mycoplasm*,
    chlamyd*, psittac*, pneumophil*, haemophilus, hemophilus, pseudomon*, moraxell*, acinetobacter*, enterobacter*, serratia,
    burkholderi*, coxiell*, q fever, anthrax, nocardi*, actinomyc*, mycobacteri*, tubercul*, tb, mtb, syphili*"""
_FUNGI = """
    fungal*, fungus, fungi, pneumocyst*, jirovec*, carinii, pcp, pjp, aspergill*, candida, candidal, candidaemia, candidemia,
    candidia*, candidosis, cryptococc*, histoplasm*, coccidioid*, blastomyc*, mucormyc*"""
_SYNDROMES = """
    pneumoni*, bronchopneumon*, pleuropneumon*, parapneumon*, lipoid*, aspirat*, ards, acute respiratory distress syndrome*,
    respiratory distress syndrome*"""
_TESTS = """
    pcr, pcrs, rt pcr, rt pcrs, rrt pcr, qpcr, rt qpcr, naat, real time reverse transcript*, reverse transcript*, polymerase chain
    reaction*, polymerase change reaction*, rna, dna, swab*, nasopharyngeal swab*, throat swab*, antigen*, legionella ag,
    immunofluoresc*, serolog*, culture*"""

# A space in a name stands for up to three signs that are neither letter nor digit, or for none ("SARS-CoV 2", "SARSCoV2"); a final `*`
# for any inflection, where no ordinary word begins so. Case, accents, wide letters and invisible characters do not matter. "ovid" is a
# COVID that lost its first letter.
NAMES: tuple[str, ...] = tuple(
    " ".join(name.split()) for group in (_CORONAVIRUSES, _VIRUSES, _BACTERIA, _FUNGI, _SYNDROMES, _TESTS) for name in group.split(",")
)

_LETTER = r"[^\W_]"


def _pattern() -> re.Pattern[str]:
    written = [r"[\W_]{0,3}".join(re.escape(part) for part in name.split()).replace(r"\*", f"{_LETTER}*") for name in NAMES]
    names = f"(?:{'|'.join(sorted(written, key=len, reverse=True))})(?!{_LETTER})"
    return re.compile(rf"(?<!{_LETTER}){names}(?:[\s/\u2010-\u2015\u2212-]{{1,3}}{names})*")


_PATTERN = _pattern()


def blank(text: str) -> tuple[str, int]:
    """Replace every name, or run of names, by `TOKEN`; everything else stays as it is.

    Returns:
        the text, and how many tokens were put in.
    """
    folded: list[str] = []
    origin: list[int] = []  # position in `text` of every folded character
    for position, character in enumerate(text):
        plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
        for part in plain:
            if unicodedata.category(part)[0] != "M" and unicodedata.category(part) != "Cf":
                folded.append(part)
                origin.append(position)
    pieces: list[str] = []
    done = count = 0
    for found in _PATTERN.finditer("".join(folded)):
        # Up to the next folded character: marks that belong to the last letter go with it.
        start, end = origin[found.start()], origin[found.end()] if found.end() < len(origin) else len(text)
        pieces += [text[done:start], TOKEN]
        done, count = end, count + 1
    return "".join(pieces) + text[done:], count
