"""How far a fit has come, and when it is over."""

import math
from dataclasses import dataclass

from cm2pyro.config import Fit


@dataclass
class Progress:
    """How far a fit has come.

    Attributes:
        epoch: epochs done. batch: batches of the next one that are done. step: batches done in all. skipped: of the last of them,
            how many in a row were left out since they were not finite. best: lowest validation log-loss and best_epoch where it was
            reached; waited: epochs since. done: the fit has ended.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    skipped: int = 0
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    done: bool = False

    def judge(self, log_loss: float | None) -> bool:
        """Whether the epoch that has ended is the best so far. None: there is nothing to judge by, and the latest one is."""
        better = log_loss is None or (math.isfinite(log_loss) and (self.best is None or log_loss < self.best))
        if better:
            self.best, self.best_epoch, self.waited = log_loss, self.epoch, 0
        else:
            self.waited += 1
        return better

    def judge_end(self, fit: Fit) -> None:
        """Whether epochs or patience are used up; more of them than before may have been asked for."""
        self.done = self.epoch >= fit.epochs or self.waited >= fit.patience
