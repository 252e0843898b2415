"""What every part of the config shares."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cm2pyro.registry import not_a_switch

Number = BeforeValidator(not_a_switch)
Positive = Annotated[float, Number, Field(gt=0)]
PositiveInt = Annotated[int, Number, Field(gt=0, le=1_000_000_000)]
NotNegative = Annotated[float, Number, Field(ge=0)]
Fraction = Annotated[float, Number, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of the config: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Open(BaseModel):
    """A part of the config whose further keys are options of the entry that it names, checked by that entry's registry."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the named entry."""
        return dict(self.__pydantic_extra__ or {})
