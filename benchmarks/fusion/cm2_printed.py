"""CM² as its paper prints it."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from benchmarks.fusion.base import Options, Projected, Setting, outcome_loss
from cm2pyro.data.dataset import Batch
from cm2pyro.distributions import make_copula
from cm2pyro.models.fusion import LSTMFusion

_DRAWS = 20  # of missing representations, averaged in evaluation
_FLOOR = 1e-2  # of component scales
_LEAST_LOG = -500.0  # of log u, where its normal score is still a float64


class CM2Printed(Projected):
    """CM² (Wu et al., ICML 2025) as printed: mixture margins, a copula of their joint CDFs, marginal draws for the missing.

    Each modality's representation z_m (d wide, a point, no posterior) has a mixture of K diagonal Gaussians as its margin, with
    density f_m and distribution function F_m(z_m) = sum over k of pi_mk times the product over j of Phi((z_mj − mu_mkj) / sigma_mkj).
    The objective is the outcome's cross-entropy minus `weight` (lambda_cop) times the mean of
    log c(F_1(z_1), …, F_M(z_M)) + sum over m of log f_m(z_m). For d > 1 F_m(z_m) is not uniform, so this is no log density;
    it is what is printed, and it is not mended here. A missing z_m is a draw from its own margin, whatever the others are; an LSTM
    reads z_1 … z_M, drawn ones included.

    The paper's published code differs from the paper, and this follows the paper: there the Gumbel copula's distribution function
    stands in place of its density (marked as to be corrected); Gaussian and Frank scores are standardised over the batch; one
    component index is summed over jointly, with u of each component in place of the mixture's; a "draw" is the weighted mean of
    one draw per component; and the drawn representation lies beyond the LSTM's sequence length, so that it never enters the
    prediction, and is left out entirely with three modalities.

    Own choices where the paper is silent: draws pass no gradient to the mixture and enter the copula term, as in that code; in
    evaluation the probability is a mean over 20 draws (the paper reports one); means start spread out, since with the code's start
    at 0 all components would stay equal; scales have a floor of 0.01, since the objective has no lower bound without one.

    Args:
        weight: lambda_cop; the published scripts have 1e-6. The copula is Gumbel, their usual choice, with one parameter.
        components: K, 3 in the scripts.
    """

    trials: ClassVar[tuple[Options, ...]] = ({"weight": 1e-6}, {"weight": 1e-4}, {"weight": 1e-2})

    def __init__(self, setting: Setting, *, weight: float = 1e-4, components: int = 3, width: int | None = None) -> None:
        super().__init__(setting, width)
        M, D = len(self.names), self.dim
        self.weight = weight
        self.logits = nn.Parameter(torch.zeros(M, components))
        self.locs = nn.Parameter(0.5 * torch.randn(M, components, D))
        self.raw_scales = nn.Parameter(torch.zeros(M, components, D))
        self.raw_theta = nn.Parameter(torch.tensor(-1.0))
        self.fusion = LSTMFusion(M, D, hidden=64, layers=1)
        self.head = nn.Linear(self.fusion.width, 1)

    @property
    def scales(self) -> Tensor:
        return nn.functional.softplus(self.raw_scales) + _FLOOR

    def mixture_parameters(self) -> list[nn.Parameter]:
        return [self.logits, self.locs, self.raw_scales, self.raw_theta]

    def draw(self, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """(rows, M, D) from the margins, each modality by itself, without gradients."""
        with torch.no_grad():
            M = len(self.names)
            shares = self.logits.softmax(-1)
            chosen = torch.multinomial(shares, rows, replacement=True, generator=generator)  # (M, rows)
            place = torch.arange(M)[:, None]
            noise = torch.randn(rows, M, self.dim, generator=generator)
            return self.locs[place, chosen].transpose(0, 1) + self.scales[place, chosen].transpose(0, 1) * noise

    def filled(self, z: Tensor, observed: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """z (B, M, D) with draws in place of what is missing."""
        return torch.where(observed[..., None], z, self.draw(len(z), generator))

    def outcome(self, z: Tensor) -> Tensor:
        return self.head(self.fusion(z))[..., 0]

    def log_joint(self, z: Tensor) -> Tensor:
        """(B,) the printed log c(F_1, …, F_M) + sum of log f_m, for z (B, M, D)."""
        s = ((z[:, :, None] - self.locs) / self.scales).double()  # (B, M, K, D): u is a product of D factors
        shares = self.logits.log_softmax(-1).double()
        log_u = torch.logsumexp(shares + torch.special.log_ndtr(s).sum(-1), -1)  # (B, M)
        density = torch.distributions.Normal(0.0, 1.0).log_prob(s) - self.scales.double().log()
        log_f = torch.logsumexp(shares + density.sum(-1), -1)
        scores = torch.special.ndtri(log_u.clamp(_LEAST_LOG, -1e-12).exp())
        copula = make_copula("gumbel", len(self.names), theta=1 + nn.functional.softplus(self.raw_theta).double())
        return copula.log_prob(scores) + log_f.sum(-1)

    def loss(self, batch: Batch) -> Tensor:
        z = self.filled(self.projected(batch), batch.observed)
        loss = outcome_loss(self.outcome(z), batch.labels, batch.labelled)
        return loss - self.weight * self.log_joint(z).mean().to(loss.dtype)

    def forward(self, batch: Batch) -> Tensor:
        return torch.logit(self.probabilities(batch), eps=1e-7)

    def probabilities(self, batch: Batch) -> Tensor:
        # Every row meets the same draws, so that a prediction does not depend on who else is in the batch.
        generator = torch.Generator().manual_seed(0)
        z = self.projected(batch)
        drawn = self.draw(_DRAWS, generator)
        several = torch.where(batch.observed[..., None], z, drawn[:, None])  # (S, B, M, D)
        return torch.sigmoid(self.outcome(several)).mean(0)
