"""Learning rates and Adam's bias corrections as functions of the step."""

import numpy as np
from numpy.typing import NDArray

from cnn.config import Training


def learning_rates(settings: Training, first_step: int, n_steps: int) -> NDArray[np.float32]:
    """Return the learning rate of each step, (n_steps,).

    It rises linearly over the warm-up, then stays (constant) or falls towards 0 at the
    end of training (linear, cosine).
    """
    steps = np.arange(first_step, first_step + n_steps, dtype=np.float64)
    n_warmup = settings.warmup_fraction * settings.steps
    done = (steps - n_warmup) / (settings.steps - n_warmup)
    match settings.schedule:
        case "constant":
            factor = np.ones_like(done)
        case "linear":
            factor = 1 - done
        case "cosine":
            factor = (1 + np.cos(np.pi * done)) / 2
    warming = steps < n_warmup
    factor[warming] = np.minimum(steps[warming] + 1, n_warmup) / n_warmup
    return (settings.learning_rate * np.clip(factor, 0, 1)).astype(np.float32)


def powers(beta: float, first_step: int, n_steps: int) -> NDArray[np.float32]:
    """Return beta ** (step + 1) of each step, (n_steps,), as Adam's bias correction wants it."""
    steps = np.arange(first_step, first_step + n_steps, dtype=np.float64)
    return (beta ** (steps + 1)).astype(np.float32)
