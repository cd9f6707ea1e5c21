"""The training loop: many steps in one graph, with the images held as tensors on the device.

Adam: Kingma and Ba 2015, in TensorFlow's fused form, with epsilon outside of the bias
correction (their section 2, last paragraph).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.config import Training
from cnn.errors import ArtifactError
from cnn.train import augment, order, schedule

_DROPOUT_STREAM, _AUGMENT_STREAM, _N_STREAMS = 0, 1, 2
_EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Block:
    """What consecutive steps measured: the mean loss and the hits of each step's batch."""

    losses: NDArray[np.float32]
    n_correct: NDArray[np.int32]


class Loop:
    """Trains a model on images and labels, a block of steps at a time.

    A block's outcome depends on weights, moments, seed and step alone.
    """

    def __init__(
        self,
        model: Any,
        settings: Training,
        seed: int,
        images: NDArray[Any],
        labels: NDArray[np.int64],
    ) -> None:
        """Hold images (n, h, w, c) and labels (n,) as tensors on the device."""
        import tensorflow as tf

        self._settings, self._seed, self._n_images = settings, seed, len(labels)
        self._layers = _layers_to_logits(model)
        self._weights = [weight.value for weight in model.trainable_variables]
        self._means = [tf.Variable(tf.zeros_like(weight)) for weight in self._weights]
        self._squares = [tf.Variable(tf.zeros_like(weight)) for weight in self._weights]
        self._variables = [*self._weights, *self._means, *self._squares]
        self._images, self._labels = hold(images, labels)
        self._block = tf.function(self._run, autograph=False)
        self._count = tf.function(self._count_correct, autograph=False)

    def run(self, first_step: int, n_steps: int) -> Block:
        """Train for n_steps from first_step on and return what they measured."""
        import tensorflow as tf

        settings = self._settings
        indices = order.batches(
            self._seed, self._n_images, settings.batch_size, first_step, n_steps
        )
        rates = schedule.learning_rates(settings, first_step, n_steps)
        beta1_powers = schedule.powers(settings.beta1, first_step, n_steps)
        beta2_powers = schedule.powers(settings.beta2, first_step, n_steps)
        losses, n_correct = self._block(
            *(tf.constant(part) for part in (indices, rates, beta1_powers, beta2_powers)),
            tf.constant(first_step, tf.int64),
        )
        return Block(losses.numpy(), n_correct.numpy())

    def arrays(self) -> list[NDArray[np.float32]]:
        """Return copies of the weights, Adam's means and its squares, in this order."""
        return [np.array(variable.numpy()) for variable in self._variables]

    def restore(self, arrays: Sequence[NDArray[np.float32]]) -> None:
        """Take over what `arrays` returned; raises ArtifactError where the shapes differ."""
        wanted = [tuple(variable.shape) for variable in self._variables]
        if [array.shape for array in arrays] != wanted:
            raise ArtifactError("the checkpoint is that of another network")
        for variable, array in zip(self._variables, arrays, strict=True):
            variable.assign(array)

    def evaluate(self, images: Any, labels: Any) -> tuple[float, int]:
        """Return the mean loss and the number of hits; images, labels as `hold` returns them."""
        loss, n_correct = self._count(images, labels)
        return float(loss) / len(labels), int(n_correct)

    def _run(self, indices: Any, rates: Any, powers1: Any, powers2: Any, first_step: Any) -> Any:
        import tensorflow as tf

        n_steps = tf.shape(indices)[0]
        losses = tf.TensorArray(tf.float32, n_steps)
        hits = tf.TensorArray(tf.int32, n_steps)

        def body(i: Any, losses: Any, hits: Any) -> Any:
            step = first_step + tf.cast(i, tf.int64)
            loss, n_correct = self._step(indices[i], step, rates[i], powers1[i], powers2[i])
            return i + 1, losses.write(i, loss), hits.write(i, n_correct)

        _, losses, hits = tf.while_loop(
            lambda i, *_: i < n_steps,
            body,
            (0, losses, hits),
            parallel_iterations=1,
        )
        return losses.stack(), hits.stack()

    def _step(self, indices: Any, step: Any, rate: Any, power1: Any, power2: Any) -> Any:
        """Take one optimizer step on one batch; return its mean loss and its hits."""
        import tensorflow as tf

        labels = tf.gather(self._labels, indices)
        pixels = tf.cast(tf.gather(self._images, indices), tf.float32)
        pixels = augment.transform(pixels, self._settings, self._stream(step, _AUGMENT_STREAM))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._weights)
            logits = self._logits(pixels, step)
            loss = tf.reduce_mean(_losses(tf, logits, labels))
        gradients = tape.gradient(loss, self._weights)
        updates = [
            self._adam(*parts, rate, power1, power2)
            for parts in zip(self._weights, self._means, self._squares, gradients, strict=True)
        ]
        with tf.control_dependencies(updates):
            return tf.identity(loss), _hits(tf, logits, labels)

    def _adam(
        self,
        weight: Any,
        mean: Any,
        square: Any,
        gradient: Any,
        rate: Any,
        power1: Any,
        power2: Any,
    ) -> Any:
        import tensorflow as tf

        return tf.raw_ops.ResourceApplyAdam(
            var=weight.handle,
            m=mean.handle,
            v=square.handle,
            beta1_power=power1,
            beta2_power=power2,
            lr=rate,
            beta1=self._settings.beta1,
            beta2=self._settings.beta2,
            epsilon=self._settings.epsilon,
            grad=gradient,
        )

    def _logits(self, pixels: Any, step: Any = None) -> Any:
        """Return the logits; with a step, dropout is drawn from (seed, step)."""
        import keras
        import tensorflow as tf

        values = pixels
        for layer in self._layers:
            if not isinstance(layer, keras.layers.Dropout):
                values = layer(values)
            elif step is not None and layer.rate > 0:
                values = tf.nn.experimental.stateless_dropout(
                    values, layer.rate, self._stream(step, _DROPOUT_STREAM), rng_alg="philox"
                )
        return values

    def _stream(self, step: Any, stream: int) -> Any:
        """Return the stateless seed of one use of chance in one step."""
        import tensorflow as tf

        return tf.stack([tf.constant(self._seed, tf.int64), step * _N_STREAMS + stream])

    def _count_correct(self, images: Any, labels: Any) -> Any:
        import tensorflow as tf

        n = tf.shape(labels)[0]

        def body(start: Any, loss: Any, n_correct: Any) -> Any:
            part = slice(start, start + _EVALUATION_BATCH)
            logits = self._logits(tf.cast(images[part], tf.float32))
            batch_loss = tf.reduce_sum(tf.cast(_losses(tf, logits, labels[part]), tf.float64))
            return (
                start + _EVALUATION_BATCH,
                loss + batch_loss,
                n_correct + _hits(tf, logits, labels[part]),
            )

        start = (0, tf.constant(0.0, tf.float64), 0)
        _, loss, n_correct = tf.while_loop(
            lambda start, *_: start < n, body, start, parallel_iterations=1
        )
        return loss, n_correct


def hold(images: NDArray[Any], labels: NDArray[np.int64]) -> tuple[Any, Any]:
    """Return images and labels as tensors on the device."""
    import tensorflow as tf

    return tf.constant(images), tf.constant(labels.astype(np.int32))


def _layers_to_logits(model: Any) -> Sequence[Any]:
    names = [layer.name for layer in model.layers]
    layers: Sequence[Any] = model.layers[: names.index("logits") + 1]
    return layers


def _losses(tf: Any, logits: Any, labels: Any) -> Any:
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def _hits(tf: Any, logits: Any, labels: Any) -> Any:
    predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
    return tf.reduce_sum(tf.cast(predicted == labels, tf.int32))
