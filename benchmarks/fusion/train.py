"""The one training loop of all networks: that of `cm2pyro.inference.fit`, told by the same section `fit` of the config."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.fusion.base import FusionNet
from cm2pyro.config import Fit
from cm2pyro.data.dataset import Batch, Dataset

_BATCH = 1024  # rows predicted at once


def train_net(net: FusionNet, fit: Fit, train: Dataset, val: Dataset, seed: int, dropout: float = 0.0) -> FusionNet:
    """Fit a network and leave it with its best weights, in evaluation.

    AdamW with weight decay on matrices, L1 on encoders' first layers, gradient clipping, an exponential average of the weights
    that is validated, kept and predicted with, early stopping by the log-loss of `val`; all from `fit`.

    Args:
        val: without labelled rows there is no early stopping. seed: of batches, dropout and draws; the caller seeds the weights.
        dropout: chance that an observed modality is hidden from a training row; a row that would lose all keeps what it has.
    """
    torch.manual_seed(seed)
    apart = net.mixture_parameters()
    others = [p for p in net.parameters() if not any(p is q for q in apart)]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in others if p.dim() > 1], "weight_decay": fit.weight_decay, "peak": fit.lr},
            {"params": [p for p in others if p.dim() <= 1], "weight_decay": 0.0, "peak": fit.lr},
            {"params": apart, "weight_decay": 0.0, "peak": fit.global_lr or 10 * fit.lr},
        ],
        lr=fit.lr,
    )
    average = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    best, best_loss, waited, step = average, math.inf, 0, 0
    steps = fit.epochs * math.ceil(len(train) / fit.batch_size)
    for epoch in range(fit.epochs):
        net.train()
        order = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        for batch in train.batches(fit.batch_size, order):
            share = 0.5 * (1 + math.cos(math.pi * step / steps)) if fit.schedule == "cosine" else 1.0
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * share
            optimiser.zero_grad(set_to_none=True)
            loss = net.loss(_dropped(batch, dropout)) + (fit.l1 * net.l1() if fit.l1 else 0.0)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(net.parameters(), fit.clip)
            optimiser.step()
            step += 1
            _follow(average, net, min(fit.ema, (1 + step) / (10 + step)))
        loss_now = _validated(net, average, val)
        if loss_now is None or loss_now < best_loss:
            best, best_loss, waited = {name: tensor.clone() for name, tensor in average.items()}, loss_now or math.inf, 0
        else:
            waited += 1
        if waited >= fit.patience:
            break
    net.load_state_dict(best)
    return net.eval()


def predict_net(net: FusionNet, dataset: Dataset) -> NDArray[np.float64]:
    """(N,) probabilities of the outcome."""
    net.eval()
    with torch.no_grad():
        parts = [net.probabilities(batch) for batch in dataset.batches(_BATCH)]
    return torch.cat(parts).double().numpy()


def _dropped(batch: Batch, dropout: float) -> Batch:
    if not dropout:
        return batch
    kept = batch.observed & (torch.rand(batch.observed.shape) >= dropout)
    return batch.hiding(torch.where(kept.any(1, keepdim=True), kept, batch.observed))


def _follow(average: dict[str, Tensor], net: FusionNet, decay: float) -> None:
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            average[name].lerp_(tensor, 1 - decay) if tensor.is_floating_point() else average[name].copy_(tensor)


def _validated(net: FusionNet, average: dict[str, Tensor], val: Dataset) -> float | None:
    """Log-loss of labelled `val` rows under the averaged weights, None where there are none."""
    labelled = val.labelled
    if not bool(labelled.any()):
        return None
    own = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    net.load_state_dict(average)
    p = torch.from_numpy(predict_net(net, val))[labelled]
    net.load_state_dict(own)
    return float(torch.nn.functional.binary_cross_entropy(p, val.labels[labelled].double()))
