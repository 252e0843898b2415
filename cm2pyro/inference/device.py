"""Where a fit runs."""

import torch

from cm2pyro.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """auto, cpu or cuda. Raises ConfigError if there is no such device."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {name}: expected auto, cpu or cuda")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("--device cuda: torch finds no CUDA device; use --device auto or cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")
