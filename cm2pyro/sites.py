"""Names of every Pyro site and plate, in one place."""

import re

PLATE = "data"  # one row per sample of the minibatch
DRAWS = "draws"  # completions of the missing latents that share one draw of the observed ones

WEIGHTS = "weights"  # (T,) joint component weights
LOCS = "locs"  # (M, K, D)
SCALES = "scales"  # (M, K, D)
COPULA = "copula"  # the copula family's own parameter; further parameters have sites of their own, see `copula`

HEAD = "head"  # (outputs, width), weights of the outcome's linear head, where they have a prior
HEAD_BIAS = "head_bias"  # (outputs,)

OUTCOME = "outcome"


def copula(*parts: str) -> str:
    """Name of a site of the copula: `copula`, `copula_df`, in a mixture of families `copula_<family>`, `copula_weights`.

    Of a family named `package.module:Class` that is `copula_package_module_Class`: a site's name is that of a parameter.
    """
    return "_".join([COPULA, *(re.sub(r"\W", "_", part) for part in parts if part)])


def auxiliary(modality: str) -> str:
    """Name of the outcome's site for the auxiliary head of a modality."""
    return f"{OUTCOME}_{modality}"


def observed(modality: str) -> str:
    """Name of the site that says whether a modality is there, where a model of missingness has it."""
    return f"observed_{modality}"


def latent(modality: str) -> str:
    """Name of the latent site of a modality."""
    return f"z_{modality}"


def features(modality: str) -> str:
    """Name of the site of a modality's pooled features, which its decoder explains."""
    return f"x_{modality}"
