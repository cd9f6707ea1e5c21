"""Compute a model's outputs for many images, in batches of one size."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def compiled(function: Callable[[Any], Sequence[Any]]) -> Any:
    """Return the graph of a function that takes images, float32 (n, h, w, c), to tensors."""
    import tensorflow as tf

    return tf.function(lambda batch: function(tf.cast(batch, tf.float32)), autograph=False)


def run(
    graph: Any, images: NDArray[Any], n: int, start: int = 0
) -> Iterator[tuple[int, list[NDArray[np.float32]]]]:
    """Yield for each batch the index of its first image, and the graph's outputs.

    images: (m, h, w, c), from `start` on. The last batch is padded to n images, so an image's
    values do not depend on how many share its batch.
    """
    import tensorflow as tf

    # Each call would trace a new function from the same line, which TensorFlow mistakes for
    # endless retracing and warns about; concrete functions do not count.
    traced = graph.get_concrete_function(tf.TensorSpec((n, *images.shape[1:]), images.dtype))
    for first in range(start, len(images), n):
        batch = images[first : first + n]
        missing = n - len(batch)
        padded = np.pad(batch, [(0, missing), *[(0, 0)] * 3]) if missing else batch
        yield first, [_on_host(part)[: len(batch)] for part in traced(tf.constant(padded))]


def _on_host(tensor: Any) -> NDArray[np.float32]:
    """Return a tensor's values, without a copy if they are in the host's memory already."""
    return np.asarray(memoryview(tensor)) if "CPU" in tensor.device else tensor.numpy()
