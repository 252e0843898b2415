"""The variational guide as a Pyro program."""

from collections.abc import Callable
from contextlib import nullcontext

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from cm2pyro import noise, sites
from cm2pyro.data.dataset import Batch
from cm2pyro.distributions.latents import DrawnLatent
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.encoders import Encoder
from cm2pyro.guides.globals import GlobalGuide
from cm2pyro.guides.imputation import TREATMENTS, Noise, Represented, Treatment
from cm2pyro.guides.local import LocalGuide


class Guide(nn.Module):
    """The guide's story.

        weights, locs, scales, copula ~ q(globals)                     (scaled by beta)
        head, head_bias ~ q(head)                                      if they are sites
        for i in plate("data", N, subsample=batch):
            z_im ~ Normal(loc_m(x_im), scale_m(x_im))      observed       (or a point; scaled by beta)
            z_im ~ treatment(z_i,observed)                 missing        by default p(z_missing | z_observed) of the model,
                                                                        at the same draw of the global sites

    Args:
        locals_: modality -> its local guide. globals_: guide of the global sites. build: values -> mixture. dim: latent width D.
        missing: name of the treatment of missing modalities. beta: weight of the latents' and global terms.
        head: guide of the outcome head's sites, if it has any.

    Attributes:
        represented: of the last run, location and scale of the observed latents, for penalties.
        choice: of the last run without completions, (B,) log responsibilities of the drawn components, for the score-function term of
            the objective; else None.
    """

    def __init__(
        self,
        locals_: dict[str, LocalGuide],
        globals_: GlobalGuide,
        build: Callable[[dict[str, Tensor]], CopulaMixture],
        dim: int,
        missing: str,
        beta: float,
        head: GlobalGuide | None = None,
    ) -> None:
        super().__init__()
        self.names = tuple(locals_)
        # Prefixed, since a modality may have the name of one of ModuleDict's own methods, such as `type`.
        self.locals = nn.ModuleDict({f"of_{name}": local for name, local in locals_.items()})
        self._locals = dict(locals_)  # the same modules, with their type
        self.globals = globals_
        self.head = head
        self.build = build
        self.dim = dim
        self.missing = missing
        self.treat: Treatment = TREATMENTS.get(missing, "guide.missing")(len(self.names), dim)
        self.beta = beta
        self.represented: Represented | None = None
        self.choice: Tensor | None = None

    def encoders(self) -> list[Encoder]:
        """The encoders, in the order of the modalities."""
        return [local.encoder for local in self._locals.values()]

    def represent(self, batch: Batch) -> Represented:
        """loc and scale of q(z_m | x_m), (B, M, D) each; 0 where the modality is missing.

        In training an encoder sees the rows that have its modality and no others, so that nothing else enters gradients or
        running statistics. In evaluation it sees all rows, each at its place, and what belongs to missing ones is dropped:
        so not even the rounding of a row's latents depends on what other rows have.
        """
        locs, scales = [], []
        like = next(self.parameters())
        for m, name in enumerate(self.names):
            observed = batch.observed[:, m]
            loc = scale = torch.zeros(len(batch), self.dim, device=observed.device, dtype=like.dtype)
            rows = batch.having(m)
            if rows is not None:
                inputs = batch.inputs[name]
                if self.training:
                    some_loc, some_scale = self._locals[name]({view: x[rows] for view, x in inputs.items()})
                    loc, scale = loc.index_copy(0, rows, some_loc), scale.index_copy(0, rows, some_scale)
                else:
                    all_loc, all_scale = self._locals[name](inputs)
                    loc, scale = all_loc.where(observed[:, None], loc), all_scale.where(observed[:, None], scale)
            locs.append(loc)
            scales.append(scale)
        return torch.stack(locs, 1), torch.stack(scales, 1)

    def draw_observed(self, loc: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
        """z = loc + scale * noise; a delta has scale 0."""
        return loc + scale * noise

    def log_q(self, z: Tensor, loc: Tensor, scale: Tensor, observed: Tensor) -> Tensor:
        """log q(z_m | x_m) per modality, (B, M); 0 for deltas and for missing modalities."""
        random = scale > 0
        normal = torch.distributions.Normal(loc, torch.where(random, scale, torch.ones_like(scale)), validate_args=False)
        return torch.where(random & observed[..., None], normal.log_prob(z), z.new_zeros(())).sum(-1)

    def forward(self, batch: Batch, completions: int = 0) -> None:
        """Run the program on a minibatch; `completions` as in the model."""
        with poutine.scale(scale=self.beta):
            mixture = self.build(self.globals())
        if self.head is not None:
            self.head()
        with noise.own():
            loc, scale = self.represented = self.represent(batch)
        z = self.draw_observed(loc, scale, noise.normal_like(loc, 0))
        log_q = self.log_q(z, loc, scale, batch.observed)
        self.choice = None
        if completions:
            several, _ = mixture.completions(z.expand(completions, *z.shape), batch.observed.expand(completions, *batch.observed.shape))
            z = several.flatten(0, 1)  # component by component, as the model weighs them
        elif self.missing == "conditional":
            z, log_r = mixture.choose(z, batch.observed)
            # Where nothing is missing there was nothing to choose.
            self.choice = torch.where(batch.observed.all(1), torch.zeros_like(log_r), log_r)
        else:
            z, log_q_missing = self.treat(mixture, z, batch.observed, None, (loc, scale))
            log_q = log_q + log_q_missing
        data = pyro.plate(sites.PLATE, batch.size, subsample=batch.rows, dim=-1)
        draws = pyro.plate(sites.DRAWS, len(z), dim=-2) if completions else None
        with data, poutine.scale(scale=self.beta * batch.weight):
            for m, name in enumerate(self.names):
                with draws or nullcontext():
                    pyro.sample(sites.latent(name), DrawnLatent(z[..., m, :], log_q[:, m]))

    def draw(self, batch: Batch, mixture: CopulaMixture, noise: Noise, represented: Represented | None = None) -> Tensor:
        """S draws of all latents for prediction, (S, B, M, D).

        Args:
            noise: uniform (S, M) and standard normal (S, 2, M, D), the same for every row, so that the prediction for a
                patient does not depend on who else is in the batch.
            represented: what `represent` gave for the batch, where several mixtures are drawn from.
        """
        loc, scale = self.represent(batch) if represented is None else represented
        uniform, normal = noise
        z = self.draw_observed(loc, scale, normal[:, 0, None])
        return self.complete(z, batch.observed, mixture, (uniform[:, None], normal[:, 1, None]), (loc, scale))

    def complete(
        self,
        z: Tensor,
        observed: Tensor,
        mixture: CopulaMixture,
        noise: Noise,
        represented: Represented,
        known: Tensor | None = None,
    ) -> Tensor:
        """z (S, B, M, D) with the modalities that are not `observed` (B, M) drawn.

        Args:
            noise: uniform and standard normal that broadcast to (S, B, M) and (S, B, M, D).
            represented: what `represent` gave for the rows.
            known: (B, M) bool, the observed modalities and others whose latents in `z` are kept and, where the treatment
                lets missing ones depend on one another, conditioned on.
        """
        shape = z.shape[:-1]
        given = observed if known is None or self.missing != "conditional" else known
        drawn, _ = self.treat(mixture, z, given.expand(shape), (noise[0].expand(shape), noise[1].expand(z.shape)), represented)
        return drawn if known is None else torch.where(known[..., None], z, drawn)
