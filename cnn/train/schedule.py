"""The inputs of each train step, as functions of seed and step: batches, rates, powers."""

import numpy as np
from numpy.typing import NDArray

from cnn.config.training import Training

_LOWEST = 1 / 25  # share of its peak at which one-cycle starts


def learning_rates(settings: Training, first_step: int, n_steps: int) -> NDArray[np.float32]:
    """Return the learning rate of each step, (n_steps,).

    The rate rises over the warm-up, then stays (constant) or falls towards 0 at the end of
    training. One-cycle (Smith 2018) rises from _LOWEST of the peak and falls again, both along
    a cosine; the others rise linearly from 0.
    """
    steps = np.arange(first_step, first_step + n_steps, dtype=np.float64)
    n_warmup = settings.warmup_fraction * settings.steps
    done = (steps - n_warmup) / (settings.steps - n_warmup)
    match settings.schedule:
        case "constant":
            factor = np.ones_like(done)
        case "linear":
            factor = 1 - done
        case "cosine" | "one-cycle":
            factor = _falling(done)
    warming = steps < n_warmup
    warm = np.minimum(steps[warming] + 1, n_warmup) / n_warmup
    if settings.schedule == "one-cycle":
        warm = 1 - (1 - _LOWEST) * _falling(warm)
    factor[warming] = warm
    return (settings.learning_rate * np.clip(factor, 0, 1)).astype(np.float32)


def _falling(done: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return half a cosine, which falls from 1 at done = 0 to 0 at done = 1."""
    return np.asarray((1 + np.cos(np.pi * done)) / 2)


def powers(beta: float, first_step: int, n_steps: int) -> NDArray[np.float32]:
    """Return beta ** (step + 1) of each step, (n_steps,), for Adam's bias correction."""
    steps = np.arange(first_step, first_step + n_steps, dtype=np.float64)
    return (beta ** (steps + 1)).astype(np.float32)


def mixing(ema_decay: float, first_step: int, n_steps: int) -> NDArray[np.float32]:
    """Return each step's share of the new weights in their moving average, (n_steps,).

    In early steps it is larger than 1 - ema_decay, so the average soon forgets the initial
    weights: the decay of step t, counted from 0, is at most (1 + t) / (10 + t), as in
    tf.train.ExponentialMovingAverage.
    """
    steps = np.arange(first_step, first_step + n_steps, dtype=np.float64)
    return (1 - np.minimum(ema_decay, (1 + steps) / (10 + steps))).astype(np.float32)


def scalars(settings: Training, first_step: int, n_steps: int) -> NDArray[np.float32]:
    """Return the scalars of each step, (n_steps, 4): learning rate, powers of the betas, mixing."""
    return np.stack(
        [
            learning_rates(settings, first_step, n_steps),
            powers(settings.beta1, first_step, n_steps),
            powers(settings.beta2, first_step, n_steps),
            mixing(settings.ema_decay, first_step, n_steps),
        ],
        axis=1,
    )


def batches(
    seed: int, n_images: int, batch_size: int, first_step: int, n_steps: int
) -> NDArray[np.int32]:
    """Return the image indices of consecutive batches, (n_steps, batch_size).

    The batches come from consecutive permutations of all images, one per epoch, and a batch
    may span two of them: after k epochs every image was seen k times.
    """
    start, stop = first_step * batch_size, (first_step + n_steps) * batch_size
    epochs = range(start // n_images, -(-stop // n_images))
    drawn = np.concatenate([_permutation(seed, epoch, n_images) for epoch in epochs])
    offset = start - epochs.start * n_images
    return drawn[offset : offset + stop - start].reshape(n_steps, batch_size)


def _permutation(seed: int, epoch: int, n_images: int) -> NDArray[np.int32]:
    return np.random.default_rng([seed, epoch]).permutation(n_images).astype(np.int32)
