"""The floor: the multiplications of a train step alone, at the fastest rate of a matrix product."""

import math
import time
from collections.abc import Callable

import numpy as np

from benchmarks import peers

# Per image: forward, and twice that backward, except that conv1 needs no gradient for its input.
_CONV1, _CONV2, _DENSE1, _LOGITS = 81 * 144 * 25, 81 * 625 * 64, 1024 * 1024, 1024 * 10
FLOPS_PER_IMAGE = 2 * (3 * (_CONV1 + _CONV2 + _DENSE1 + _LOGITS) - _CONV1)
_LARGE = 1024


def steps(batch: str) -> peers.Steps:
    """Return a function that multiplies as much as n steps do, in the fastest shape."""
    batch_size = int(batch)
    ways = [(shape, way) for shape in _shapes(batch_size) for way in _ways(*shape)]
    shape, multiply = max(ways, key=lambda way: _rate(way[1], 2 * math.prod(way[0])))
    per_step = FLOPS_PER_IMAGE * batch_size / (2 * math.prod(shape))

    def take(n: int) -> None:
        for _ in range(round(n * per_step)):
            multiply()

    return take


def _shapes(batch_size: int) -> list[tuple[int, int, int]]:
    """Return the shapes (m, k, n) of a large square product and of the step's own products."""
    places = 81 * batch_size
    return [
        (_LARGE, _LARGE, _LARGE),
        *((places, 625, 64), (625, places, 64), (places, 64, 625)),
        *((batch_size, 1024, 1024), (1024, batch_size, 1024)),
    ]


def _ways(m: int, k: int, n: int) -> list[Callable[[], object]]:
    """Return NumPy's and TensorFlow's product of (m, k) and (k, n), with the factors in memory."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    a, b = rng.random((m, k), np.float32), rng.random((k, n), np.float32)
    product = tf.function(tf.matmul, autograph=False)
    tensors = tf.constant(a), tf.constant(b)
    return [lambda: a @ b, lambda: product(*tensors)]


def _rate(multiply: Callable[[], object], flops: int) -> float:
    """Return the best of five rates, in FLOP per second, each over a quarter of a second."""
    multiply()
    best = 0.0
    for _ in range(5):
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < 0.25:
            multiply()
            count += 1
        best = max(best, flops * count / (time.perf_counter() - started))
    return best
