"""The config's parts about the latents: mixture, copula, priors, guide, and what samples the posterior."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from cm2pyro.config_base import Number, Open, Positive, PositiveInt, Section


class Latent(Section):
    """The latent of every modality."""

    dim: PositiveInt = 32


class CopulaPrior(Section):
    """What ties the modalities' latents inside a component."""

    family: str = "gaussian"  # or `mixture`, of `families`
    families: Annotated[list[str], Field(min_length=2)] | None = None
    tied: bool = False  # one copula for all latent dimensions
    update: Literal["joint", "ifm", "profile"] = "joint"


class MixturePrior(Section):
    """The prior of the latents: a Gaussian mixture for each modality, joined by a copula."""

    kind: Literal["mixture", "standard"] = "mixture"  # standard: N(0, I), of which nothing is learned; an ablation
    components: PositiveInt = 3
    coupling: Literal["shared", "full"] = "shared"
    scale_floor: Positive = 0.1  # smallest component sd; latents from encoders would shrink without it
    copula: CopulaPrior = CopulaPrior()


class SitePrior(Open):
    """A prior: the name of a Pyro distribution and its arguments."""

    dist: str


class Priors(Section):
    """Priors of the global sites; `cm2pyro priors list` shows the sites that a config has. None: see there for the default.

    In a mixture of copula families every family has sites of its own, such as `copula_clayton`.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, SitePrior] = Field(init=False)

    weights: SitePrior = SitePrior(dist="Dirichlet", concentration=1.0)  # type: ignore[call-arg]
    locs: SitePrior = SitePrior(dist="Normal", loc=0.0, scale=2.0)  # type: ignore[call-arg]
    scales: SitePrior = SitePrior(dist="LogNormal", loc=0.0, scale=1.0)  # type: ignore[call-arg]
    copula: SitePrior | None = None
    copula_df: SitePrior | None = None  # degrees of freedom of the Student-t copula
    copula_weights: SitePrior | None = None  # of a mixture of families
    head: SitePrior | None = None  # weights of the outcome's linear head; None: they are no site, and weight decay is their prior
    head_bias: SitePrior | None = None

    @model_validator(mode="after")
    def _sites(self) -> Self:
        if self.head_bias is not None and self.head is None:
            raise ValueError("head_bias has a prior, head has none; give head one too")
        return self

    def copulas(self) -> dict[str, SitePrior]:
        """Priors that are given for sites of the copula."""
        named = {"copula": self.copula, "copula_df": self.copula_df, "copula_weights": self.copula_weights}
        return {name: prior for name, prior in (named | self.__pydantic_extra__).items() if prior is not None}


class Guide(Section):
    """The variational family: of the latents of a row, of missing ones, of the global sites."""

    local: Literal["normal", "delta"] = "normal"
    missing: Literal["conditional", "amortized", "marginal", "mean", "zero"] = "conditional"
    # lowrank, fullrank, flow: normals with dependence, a flow. nuts: points while the encoders learn, then draws given them, see Nuts.
    globals: Literal["delta", "normal", "lowrank", "fullrank", "flow", "nuts"] = "delta"
    completions: PositiveInt | None = None  # draws of missing latents per joint component in training; None: as the task needs

    @property
    def scores_missing(self) -> bool:
        """Whether missing latents are drawn from a density of their own, against which the model scores them."""
        return self.missing in ("amortized", "marginal")


class Nuts(Section):
    """With `guide.globals: nuts`: what is sampled once the encoders are fitted."""

    chains: Annotated[int, Number, Field(ge=1, le=64)] = 2
    warmup: PositiveInt = 300
    draws: PositiveInt = 500  # of each chain
    # Mean acceptance that the step size aims at: closer to 1, smaller steps and fewer divergent transitions, for more time.
    target_accept: Annotated[float, Number, Field(gt=0, lt=1)] = 0.9
