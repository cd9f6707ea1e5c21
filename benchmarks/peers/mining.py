"""Peers that mine: filterscope, its layers alone, its host work alone, and a sort by tf.math.top_k.

`python -m benchmarks.peers.mining FOLDER` creates their inputs. Each works on n batches; those that
mine return the positions they find.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import peers
from benchmarks.peers import ours, tiled
from benchmarks.peers.tiled import BATCH, Found, K, as_found, images
from cnn.config.run import MiningConfig, RuntimeConfig
from cnn.explain import activations, mining, patches
from cnn.explain.activations import Batch, Forward
from cnn.model_io import exports
from cnn.train import device


def search(folder: str, layer: str = "conv1") -> Callable[[int], Found]:
    """Return a function that mines a layer, as a run does."""
    model, settings = _model(folder), MiningConfig(layer=layer, patches_per_filter=K)
    pixels = images(folder)

    def mine(n: int) -> Found:
        best = patches.search(Forward(model, layer), pixels[: n * BATCH], settings)
        found: Found = [{} for _ in best.n_tied]
        for number, place, strength in zip(
            best.filters.tolist(), best.positions.tolist(), best.activations.tolist(), strict=True
        ):
            found[number][place] = strength
        return found

    mine(1)
    return mine


def layers(folder: str, layer: str = "conv1") -> peers.Steps:
    """Return a function that computes the layers up to one and ignores the result."""
    forward, pixels = _compiled(_head(folder, layer)), images(folder)

    def compute(n: int) -> None:
        for _, batch in batches(pixels, n):
            forward(batch)

    compute(1)
    return compute


def host(folder: str) -> peers.Steps:
    """Return a function that selects the strongest of conv1's activations, already in memory."""
    ready = list(activations.stream(_model(folder), "conv1", images(folder)[: 10 * BATCH]))
    rule = mining.MiningOptions(K, np.ones(ready[0].peaks.shape[1], bool))

    def repeated(n: int) -> Iterator[Batch]:
        for i in range(n):
            yield replace(ready[i % len(ready)], start=i * BATCH)

    def choose(n: int) -> None:
        mining.mine(repeated(n), rule)

    choose(1)
    return choose


def top_k(folder: str) -> Callable[[int], Found]:
    """Return a function that takes tf.math.top_k of each batch, then of that and the best so far.

    One tf.function does everything, on a transposed copy: sorting the map of each image separately,
    or without order, took longer.
    """
    import tensorflow as tf

    head, pixels = _head(folder, "conv1"), images(folder)
    n_filters, n_places = head.output_shape[-1], int(np.prod(head.output_shape[1:3]))

    def merge(batch: Any, strengths: Any, places: Any, first: Any) -> tuple[Any, Any]:
        values = head(tf.cast(batch, tf.float32), training=False)
        found, at = tf.math.top_k(tf.transpose(tf.reshape(values, (-1, n_filters))), K)
        places = tf.concat([places, tf.cast(at, tf.int64) + first * n_places], axis=1)
        strengths, order = tf.math.top_k(tf.concat([strengths, found], axis=1), K)
        return strengths, tf.gather(places, order, batch_dims=1)

    compiled = tf.function(merge, autograph=False)

    def sort(n: int) -> Found:
        strengths = tf.zeros((n_filters, K))
        places = tf.zeros((n_filters, K), tf.int64)
        for first, batch in batches(pixels, n):
            start = tf.constant(first, tf.int64)
            strengths, places = compiled(batch, strengths, places, start)
        return as_found(strengths.numpy(), places.numpy())

    sort(1)
    return sort


def batches(pixels: NDArray[np.uint8], n: int) -> Iterator[tuple[int, Any]]:
    """Yield n batches as tensors, each with the index of its first image."""
    import tensorflow as tf

    for first in range(0, n * BATCH, BATCH):
        yield first, tf.constant(pixels[first : first + BATCH])


def main(folder: Path) -> None:
    """Train and save `fast`, export conv1's weights for peers without Keras, write the images."""
    ours.main(folder / "model")
    kernel, bias = _model(str(folder)).get_layer("conv1").get_weights()
    np.savez(folder / "conv1.npz", kernel=kernel, bias=bias)
    tiled.write(folder)
    tiled.write_dataset(folder)


def _model(folder: str) -> Any:
    device.prepare(RuntimeConfig())
    return exports.load_model(Path(folder) / "model")


def _head(folder: str, layer: str) -> Any:
    import keras

    model = _model(folder)
    return keras.Model(model.inputs, model.get_layer(layer).output)


def _compiled(head: Any) -> Callable[[Any], Any]:
    import tensorflow as tf

    def forward(batch: Any) -> Any:
        return head(tf.cast(batch, tf.float32), training=False)

    compiled: Callable[[Any], Any] = tf.function(forward, autograph=False)
    return compiled


if __name__ == "__main__":
    main(Path(sys.argv[1]))
