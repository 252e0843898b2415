"""How a simulated latent becomes a time series, an image or a note.

Each renderer takes standardised latents `z` (N, D), mean 0 and variance 1 over the population, and draws its noise from
the generator that it is given. Only the first two dimensions are seen in the data; with D = 1 the second is 0.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

HOURS = 48
IMAGE_SIZE = 64
CHUNK = 512  # images made at a time, so that memory does not grow with N

# variable: centre, change per unit of z[0], change from first to last hour per unit of z[1], sd of the noise
VITALS: dict[str, tuple[float, float, float, float]] = {
    "heart_rate": (88.0, 12.0, 20.0, 5.0),  # beats a minute
    "mean_pressure": (80.0, -9.0, -15.0, 5.0),  # mmHg
    "temperature": (37.2, 0.4, 0.7, 0.2),  # degrees Celsius
}

# Seven grades each, from light to grave; z = 0 is the middle one.
BURDEN: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "{}.",
        (
            "Breathing comfortably",
            "Breathing slightly fast",
            "Mildly short of breath",
            "Moderately short of breath",
            "Clearly short of breath",
            "Marked respiratory distress",
            "Extreme respiratory distress",
        ),
    ),
    (
        "Currently {}, saturation followed.",
        (
            "on room air",
            "on a trace of nasal oxygen",
            "on low-flow nasal oxygen",
            "on moderate nasal oxygen",
            "on a face mask",
            "on high-flow oxygen",
            "on maximal oxygen support",
        ),
    ),
    (
        "On auscultation {}.",
        (
            "clear throughout",
            "scant basal crackles",
            "soft basal crackles",
            "crackles to the mid zones",
            "coarse crackles on both sides",
            "widespread coarse crackles",
            "coarse crackles, very poor air entry",
        ),
    ),
)
FUNCTION: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Patient is {}.",
        (
            "bright and talkative",
            "alert and oriented",
            "calm, a little tired",
            "drowsy but rousable",
            "confused at times",
            "hard to rouse",
            "unresponsive to voice",
        ),
    ),
    (
        "Mobility: {}.",
        (
            "walks the corridor unaided",
            "walks with a stick",
            "walks to the chair",
            "sits out with help",
            "sits up in bed only",
            "turned in bed by two",
            "lies still",
        ),
    ),
    (
        "Asked how the night was, the answer is {}.",
        (
            '"wonderful"',
            '"good, thank you"',
            '"not bad"',
            '"so-so"',
            '"long, too long"',
            '"awful"',
            "only a groan",
        ),
    ),
)
FILLER = (
    "Family at the bedside.",
    "Lines checked, dressings dry.",
    "Discussed on the morning round.",
    "Allergies reviewed, none recorded.",
    "Will see again in the evening.",
    "Interpreter not needed.",
    'Asks "when can I go home?" again.',
    "Bloods sent, results awaited.",
    "Plan explained, questions answered.",
    "Night staff informed.",
)


def first_two(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two dimensions (N,), (N,) that show in the data; zeros for the second where D = 1."""
    return z[:, 0], z[:, 1] if z.shape[1] > 1 else np.zeros(len(z))


def series_table(sample_ids: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> "pd.DataFrame":
    """Vital signs over 48 h as a long table `sample_id, hours, variable, value`, in the order of samples and hours.

        hours_ivj  ~ Uniform(j, j + 1), j = 0 … 47, kept with probability 0.75: about hourly, with gaps
        e_ivj      ~ AR(1) over j, correlation 0.7, stationary sd of the variable
        value_ivj  = centre_v + level_v z_i0 + slope_v z_i1 (hours / 48 − 1/2) + e_ivj

    Args:
        sample_ids: (N,) text.
        z: (N, D) standardised latents of the modality.
        rng: where the noise comes from.
    """
    import pandas as pd

    level, slope = first_two(z)
    centre, per_level, per_slope, sd = (np.array(column)[:, None] for column in zip(*VITALS.values(), strict=True))  # (V, 1) each
    shape = (len(z), len(VITALS), HOURS)
    # Cut, not rounded, to 1/100 h: rounding up could reach the next hour, and with it the end of the stay.
    hours = np.arange(HOURS) + np.floor(rng.random(shape) * 100) / 100
    kept = rng.random(shape) < 0.75
    noise = rng.standard_normal(shape)
    for j in range(1, HOURS):
        noise[..., j] = 0.7 * noise[..., j - 1] + np.sqrt(1 - 0.7**2) * noise[..., j]
    value = centre + per_level * level[:, None, None] + per_slope * slope[:, None, None] * (hours / HOURS - 0.5) + sd * noise

    row, variable, _ = np.nonzero(kept)
    hours, value = hours[kept], value[kept]
    order = np.lexsort((variable, hours, row))
    return pd.DataFrame(
        {
            "sample_id": sample_ids[row[order]],
            "hours": np.round(hours[order], 2),
            "variable": np.array(list(VITALS), dtype=object)[variable[order]],
            "value": np.round(value[order], 2),
        }
    )


def images(z: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Chest-film-like pictures, each (64, 64) uint8: two dark lung fields, one of them with an opacity.

        side_i       ~ left | right, with equal odds;  column jitter ~ N(0, 1.5²) pixels;  exposure_i ~ N(0, 4²) grey levels
        brightness_i = 20 + 130 sigmoid(z_i0)               grey levels that the opacity adds at its centre
        row_i        = 32 + 17 tanh(z_i1 / 1.5)             its height, within the lung
        pixel        = background + exposure + opacity + N(0, 6²), cut to 0 … 255

    Args:
        z: (N, D) standardised latents of the modality.
        rng: where the noise comes from.
    """
    first, second = first_two(z)
    brightness = 20 + 130 / (1 + np.exp(-first))
    row = 32 + 17 * np.tanh(second / 1.5)
    y, x = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(float)
    background = 130.0 + 15 * np.exp(-(((x - 31.5) / 5) ** 2))
    for centre in (18.0, 45.0):
        # A smooth edge: sigmoid of the distance to an ellipse.
        inside = 1 - ((x - centre) / 11) ** 2 - ((y - 32) / 26) ** 2
        background -= 90 / (1 + np.exp(-8 * inside))

    for start in range(0, len(z), CHUNK):
        part = slice(start, min(start + CHUNK, len(z)))
        n = part.stop - start
        column = np.where(rng.random(n) < 0.5, 18.0, 45.0) + 1.5 * rng.standard_normal(n)
        exposure = 4 * rng.standard_normal(n)
        distance = ((x - column[:, None, None]) / 5) ** 2 + ((y - row[part][:, None, None]) / 5) ** 2
        pixel = background + exposure[:, None, None] + brightness[part][:, None, None] * np.exp(-distance / 2)
        pixel += 6 * rng.standard_normal(pixel.shape)
        yield from np.clip(np.round(pixel), 0, 255).astype(np.uint8)


def notes(z: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Short clinical notes: graded words about breathing (z_i0) and function (z_i1), between sentences that say nothing.

        grade_ia  = 3 + 1.5 (z_i + 0.2 ε_ia), rounded, cut to 0 … 6       three aspects a of each latent
        each aspect is mentioned with probability 0.9; one to three fillers; all in random order

    Symptoms only, never a diagnosis or a class. Commas and quotation marks occur, as in real notes.

    Args:
        z: (N, D) standardised latents of the modality.
        rng: where the noise comes from.
    """
    aspects = BURDEN + FUNCTION
    latent = np.repeat(np.stack(first_two(z), axis=1), len(BURDEN), axis=1)  # (N, 6)
    grades = np.clip(np.rint(3 + 1.5 * (latent + 0.2 * rng.standard_normal(latent.shape))), 0, 6).astype(int)
    mentioned = rng.random(latent.shape) < 0.9
    texts = []
    for grade, said in zip(grades, mentioned, strict=True):
        sentences = [template.format(words[grade[a]]) for a, (template, words) in enumerate(aspects) if said[a]]
        sentences += [FILLER[i] for i in rng.choice(len(FILLER), size=rng.integers(1, 4), replace=False)]
        texts.append(" ".join(sentences[i] for i in rng.permutation(len(sentences))))
    return texts
