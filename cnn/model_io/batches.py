"""A model's answers for many images, in batches of one size."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def compiled(function: Callable[[Any], Sequence[Any]]) -> Any:
    """Return a graph of a function of images, float32 (n, h, w, c), that returns tensors."""
    import tensorflow as tf

    return tf.function(lambda batch: function(tf.cast(batch, tf.float32)), autograph=False)


def run(
    graph: Any, images: NDArray[Any], n: int, start: int = 0
) -> Iterator[tuple[int, list[NDArray[np.float32]]]]:
    """Yield the index of each batch's first image, and what the graph returns for the batch.

    images: (m, h, w, c), from `start` on. The last batch is computed padded to n images, so that
    an image's values do not depend on how many come with it.
    """
    import tensorflow as tf

    # TensorFlow takes many functions from one line for one that is traced over and over, and
    # warns of it, unless they are asked for their graphs.
    traced = graph.get_concrete_function(tf.TensorSpec((n, *images.shape[1:]), images.dtype))
    for first in range(start, len(images), n):
        batch = images[first : first + n]
        missing = n - len(batch)
        padded = np.pad(batch, [(0, missing), *[(0, 0)] * 3]) if missing else batch
        yield first, [_on_host(part)[: len(batch)] for part in traced(tf.constant(padded))]


def _on_host(tensor: Any) -> NDArray[np.float32]:
    """Return a tensor's values, those that lie in this memory already without a copy."""
    return np.asarray(memoryview(tensor)) if "CPU" in tensor.device else tensor.numpy()
