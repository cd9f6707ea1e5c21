"""The floor: the step's multiplications alone, at the best rate of a matrix product here."""

import math
import time
from collections.abc import Callable

import numpy as np

from benchmarks import peers

# Per image: forward, and twice that backward, but that conv1 needs no gradient of its input.
_CONV1, _CONV2, _DENSE1, _LOGITS = 81 * 144 * 25, 81 * 625 * 64, 1024 * 1024, 1024 * 10
FLOPS_PER_IMAGE = 2 * (3 * (_CONV1 + _CONV2 + _DENSE1 + _LOGITS) - _CONV1)
_LARGE = 1024


def steps(batch: str) -> peers.Steps:
    """Return what multiplies as much as the steps do, in the shape that is fastest here."""
    batch_size = int(batch)
    rates = [(_rate(way, *shape), way, shape) for way in _ways() for shape in _shapes(batch_size)]
    _, multiply, shape = max(rates, key=lambda item: item[0])
    a, b = _factors(*shape)
    per_step = FLOPS_PER_IMAGE * batch_size / (2 * math.prod(shape))

    def take(n: int) -> None:
        for _ in range(round(n * per_step)):
            multiply(a, b)

    return take


def _shapes(batch_size: int) -> list[tuple[int, int, int]]:
    """Return a large square, and the step's own products (m, k, n)."""
    places = 81 * batch_size
    return [
        (_LARGE, _LARGE, _LARGE),
        *((places, 625, 64), (625, places, 64), (places, 64, 625)),
        *((batch_size, 1024, 1024), (1024, batch_size, 1024)),
    ]


def _ways() -> list[Callable[[np.ndarray, np.ndarray], object]]:
    import tensorflow as tf

    product = tf.function(tf.matmul, autograph=False)
    return [np.matmul, lambda a, b: product(tf.constant(a), tf.constant(b))]


def _rate(multiply: Callable[[np.ndarray, np.ndarray], object], m: int, k: int, n: int) -> float:
    """Return the best of five rates, in FLOP a second, each over a quarter of a second."""
    a, b = _factors(m, k, n)
    multiply(a, b)
    best = 0.0
    for _ in range(5):
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < 0.25:
            multiply(a, b)
            count += 1
        best = max(best, 2 * m * k * n * count / (time.perf_counter() - started))
    return best


def _factors(m: int, k: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((m, k), np.float32), rng.random((k, n), np.float32)
