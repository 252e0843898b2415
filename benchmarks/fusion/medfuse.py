"""MedFuse: an LSTM over whichever modalities there are."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from benchmarks.fusion.base import Options, Projected, Setting
from cm2pyro.data.dataset import Batch


class MedFuse(Projected):
    """MedFuse (Hayat, Geras & Shamout, MLHC 2022): an LSTM reads the sequence of available modalities; its last state predicts.

    A missing modality is not a step of the sequence. Adapted: M modalities in the order of the config, all projected to one width
    (the paper projects the image onto the time series' width); encoders and fusion are trained together from the start, without
    the paper's unimodal pretraining, so that the budget is that of the other methods. Where nothing is observed the state is 0.

    Args:
        hidden: width of the LSTM. width: of the projections.
    """

    trials: ClassVar[tuple[Options, ...]] = ({"hidden": 16}, {"hidden": 32}, {"hidden": 64})

    def __init__(self, setting: Setting, *, hidden: int = 32, width: int = 64) -> None:
        super().__init__(setting, width)
        self.hidden = hidden
        self.cell = nn.LSTMCell(self.dim, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, batch: Batch) -> Tensor:
        z = self.projected(batch)
        state = memory = z.new_zeros(len(batch), self.hidden)
        for m in range(len(self.names)):
            there = batch.observed[:, m, None]
            new_state, new_memory = self.cell(z[:, m], (state, memory))
            state, memory = torch.where(there, new_state, state), torch.where(there, new_memory, memory)
        return self.head(state)[:, 0]
