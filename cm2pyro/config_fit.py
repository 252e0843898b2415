"""The config's part about the fit."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from cm2pyro.config_base import Fraction, NotNegative, Number, Positive, PositiveInt, Section


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("names one twice; keep one")
    return names


Distinct = Annotated[tuple[str, ...], AfterValidator(_distinct)]


class Fit(Section):
    """How long, how fast and with what care the parameters are learned."""

    epochs: PositiveInt = 50
    batch_size: PositiveInt = 64
    lr: Positive = 1e-3
    global_lr: Positive | None = None  # of the global sites; None: 10 lr, since latents of encoders move far while the prior must follow
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: NotNegative = 0.0  # on matrices of encoders and fusion
    l1: NotNegative = 0.0  # on the first layers of encoders that name one
    clip: Positive = 10.0  # largest gradient norm
    ema: Fraction = 0.0  # decay of the exponential average of the weights; 0: off
    beta: Annotated[float, Number, Field(gt=0, le=1)] = 1e-3  # weight of the KL
    auxiliary: NotNegative = 0.0  # weight of the outcome's likelihood from each observed modality alone; 0: no such heads
    modality_dropout: Fraction = 0.0  # chance that an observed modality is hidden from a training row
    restarts: PositiveInt = 3  # starts of the mixture that is fitted to the pilot latents
    warmup: Annotated[int, Number, Field(ge=0)] = 0  # after that many epochs the mixture starts again, on the latents learned so far
    patience: PositiveInt = 10
    validation: Fraction = 0.2  # share of the training subjects that stop the fit where no row is `val`; 0: none, and all epochs run
    settle: bool = False  # at the end the mixture moves to the greatest density of the latents as the encoders have left them
    ensemble: Annotated[int, Number, Field(ge=1, le=100)] = 1  # fits with seeds seed, seed + 1 …, whose predictions are averaged
    checkpoint_minutes: Positive = 10.0  # a checkpoint at the end of every epoch, and inside one where that long has passed
    skip: Annotated[int, Number, Field(ge=0)] = 3  # steps in a row whose loss or gradient is not finite that are left out; one more: stop
    precision: Literal["float32", "bfloat16"] = "float32"  # of what the encoders compute; weights, latents and the rest are float32
    compile: bool = False  # encoders through torch.compile
    deterministic: bool = False  # the same fit gives the same bits on the same machine; an operation that cannot is refused
    recalibration: str = "none"  # or temperature, isotonic: bends the probabilities after the fit, on the validation rows
    trackers: Distinct = ()  # tensorboard, mlflow, wandb: told every epoch, each an extra of the package
    seed: Annotated[int, Number, Field(ge=0, lt=2**32)] = 0  # the range that numpy and scikit-learn take
