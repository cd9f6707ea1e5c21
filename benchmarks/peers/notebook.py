"""The notebook's way, rewritten: a TensorFlow 1 graph that is fed each batch in a session."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks import peers
from benchmarks.peers.tiled import BATCH, K, images

_BATCH, _STEPS = 50, 3000
_v1 = tf.compat.v1


def steps(batch: str) -> peers.Steps:
    """Return a function that trains the graph, without fetching loss or accuracy."""
    graph, (pixels, known) = _Graph(), _data()
    batches = _batches(len(pixels), int(batch), 0)

    def take(n: int) -> None:
        for _ in range(n):
            chosen = next(batches)
            graph.train(pixels[chosen], known[chosen])

    take(peers.N_WARM)
    return take


def training() -> peers.Training:
    """Return a function that builds the graph and trains it for the notebook's 3000 steps."""
    _trained(0, peers.N_WARM)
    test = _data("t10k")
    return lambda seed: _trained(seed, _STEPS).accuracy(*test)


def search(folder: str, way: str = "array") -> Callable[[int], list[float]]:
    """Return a function that finds the strongest positions of filters 0 to 4 as the notebook does.

    It walks over all positions of all five filters with one list, and overwrites the first smaller
    entry with a new activation, where it should shift the rest. way: `array` keeps the list in
    NumPy; `list`, with plain Python numbers, is faster.
    """
    weights, pixels = np.load(Path(folder) / "conv1.npz"), images(folder)
    walk = {"array": _in_array, "list": _in_list}[way]

    def look(n: int) -> list[float]:
        batch = tf.constant(pixels[: n * BATCH], tf.float32) / 255
        values = tf.nn.conv2d(batch, weights["kernel"][..., :5], 2, "VALID")
        values = tf.nn.relu(values + weights["bias"][:5])
        return walk(tf.transpose(values, (0, 3, 1, 2)).numpy().ravel())

    return look


def _in_array(activations: NDArray[np.float32]) -> list[float]:
    best = np.zeros(K)
    for value in activations:
        if value > best.min():
            best[np.argmax(best < value)] = value
    return best.tolist()


def _in_list(activations: NDArray[np.float32]) -> list[float]:
    best = [0.0] * K
    for value in activations.tolist():
        if value > min(best):
            best[next(i for i in range(K) if best[i] < value)] = value
    return best


def main(path: str) -> None:
    """Train as the notebook does and save what TensorFlow 1 saves: a process from start to end."""
    _trained(0, _STEPS).save(path)


def _trained(seed: int, n_steps: int) -> "_Graph":
    _v1.reset_default_graph()
    _v1.set_random_seed(seed)
    graph, (pixels, known) = _Graph(), _data()
    batches = _batches(len(pixels), _BATCH, seed)
    for _ in range(n_steps):
        chosen = next(batches)
        graph.train(pixels[chosen], known[chosen])
    return graph


def _batches(n: int, batch_size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    while True:
        drawn = rng.permutation(n)
        for first in range(0, n - batch_size + 1, batch_size):
            yield drawn[first : first + batch_size]


def _data(part: str = "train") -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return pixels 0..1 (n, 784) and one-hot labels (n, 10), as the tutorial's reader did."""
    pixels = peers.images(part).reshape(-1, 784).astype(np.float32) / 255
    return pixels, np.eye(10, dtype=np.float32)[peers.labels(part)]


class _Graph:
    """The notebook's graph, with its faults, in a session of its own."""

    def __init__(self) -> None:
        _v1.disable_eager_execution()
        self._x = _v1.placeholder(tf.float32, [None, 784])
        self._y = _v1.placeholder(tf.float32, [None, 10])
        self._keep = _v1.placeholder(tf.float32)
        values = tf.reshape(self._x, [-1, 28, 28, 1])
        values = tf.nn.relu(tf.nn.conv2d(values, _weights(12, 12, 1, 25), 2, "VALID"))
        values = tf.nn.relu(tf.nn.conv2d(values, _weights(5, 5, 25, 64), 1, "SAME"))
        values = tf.nn.max_pool2d(values, 2, 2, "VALID")
        values = tf.reshape(values, [-1, 4 * 4 * 64])
        values = tf.nn.relu(tf.matmul(values, _weights(1024, 1024)) + _biases(1024))
        values = _v1.nn.dropout(values, keep_prob=self._keep)
        logits = tf.nn.relu(tf.matmul(values, _weights(1024, 10)) + _biases(10))
        losses = _v1.nn.softmax_cross_entropy_with_logits_v2(labels=self._y, logits=logits)
        self._train = _v1.train.AdamOptimizer(1e-4).minimize(tf.reduce_mean(losses))
        hits = tf.equal(tf.argmax(logits, 1), tf.argmax(self._y, 1))
        self._accuracy = tf.reduce_mean(tf.cast(hits, tf.float32))
        self._session = _v1.Session()
        self._session.run(_v1.global_variables_initializer())

    def train(self, pixels: NDArray[np.float32], known: NDArray[np.float32]) -> None:
        self._session.run(self._train, {self._x: pixels, self._y: known, self._keep: 0.5})

    def accuracy(self, pixels: NDArray[np.float32], known: NDArray[np.float32]) -> float:
        feed = {self._x: pixels, self._y: known, self._keep: 1.0}
        return float(self._session.run(self._accuracy, feed))

    def save(self, path: str) -> None:
        _v1.train.Saver().save(self._session, path)


def _weights(*shape: int) -> Any:
    return _v1.Variable(_v1.truncated_normal(shape, stddev=0.05))


def _biases(n: int) -> Any:
    return _v1.Variable(tf.constant(0.1, shape=[n]))


if __name__ == "__main__":
    main(sys.argv[1])
