"""The training loop: many train steps in one graph, with the images held on the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.config.training import Training
from cnn.errors import ArtifactError
from cnn.model_io.keras_types import Model
from cnn.train import augment, forward, optimizers, schedule

_DROPOUT_STREAM, _AUGMENT_STREAM, _N_STREAMS = 0, 1, 2
_EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Block:
    """Measurements of consecutive steps: each batch's mean cross-entropy (nats) and hits.

    The cross-entropy is that of the true labels, even if training smooths them.
    """

    losses: NDArray[np.float32]
    n_correct: NDArray[np.int32]


class Loop:
    """Train a model on images and labels, one block of steps at a time.

    The result of a block depends only on weights, slots, averages, seed and step. After
    `finish` the model holds the moving averages of its weights, if the settings ask for them.
    With `xla`, XLA compiles the step: several times as fast on a GPU, slower on a CPU.
    """

    def __init__(
        self,
        model: Model,
        settings: Training,
        seed: int,
        images: NDArray[Any],
        labels: NDArray[np.int64],
        xla: bool = False,
    ) -> None:
        """Hold images (n, h, w, c) and labels (n,) as tensors on the device."""
        import tensorflow as tf

        self._settings, self._seed, self._n_images, self._xla = settings, seed, len(labels), xla
        self._layers, self._weights = forward.layers_of(model), by_name(model)
        self._optimizer = optimizers.of(settings)
        self._slots = {
            name: [tf.Variable(tf.zeros_like(weight)) for _ in range(self._optimizer.n_slots)]
            for name, weight in self._weights.items()
        }
        self._averages = (
            {name: tf.Variable(weight) for name, weight in self._weights.items()}
            if settings.ema_decay
            else {}
        )
        slots = [slot for of_weight in self._slots.values() for slot in of_weight]
        self._variables = [*self._weights.values(), *slots, *self._averages.values()]
        self._images, self._labels = hold(images, labels)
        self._take_step = tf.function(self._step, jit_compile=True) if xla else self._step
        self._block = tf.function(self._run, autograph=False)
        self._count = tf.function(self._count_correct, autograph=False)

    def run(self, first_step: int, n_steps: int) -> Block:
        """Train for n_steps from first_step on, and return their measurements."""
        import tensorflow as tf

        indices = schedule.batches(
            self._seed, self._n_images, self._settings.batch_size, first_step, n_steps
        )
        scalars = schedule.scalars(self._settings, first_step, n_steps)
        losses, n_correct = self._block(
            tf.constant(indices), tf.constant(scalars), tf.constant(first_step, tf.int64)
        )
        return Block(losses.numpy(), n_correct.numpy())

    def finish(self) -> None:
        """Replace the model's weights with their moving averages, if there are any."""
        for name, average in self._averages.items():
            self._weights[name].assign(average)

    def arrays(self) -> list[NDArray[np.float32]]:
        """Return copies of the weights, the optimizer's slots and the averages, in this order."""
        return [np.array(variable.numpy()) for variable in self._variables]

    def restore(self, arrays: Sequence[NDArray[np.float32]]) -> None:
        """Restore what `arrays` returned. Raises ArtifactError if the shapes differ."""
        expected = [tuple(variable.shape) for variable in self._variables]
        if [array.shape for array in arrays] != expected:
            raise ArtifactError("the checkpoint belongs to another network")
        for variable, array in zip(self._variables, arrays, strict=True):
            variable.assign(array)

    def evaluate(self, images: Any, labels: Any) -> tuple[float, int]:
        """Return the mean loss and the number of hits; images, labels as `hold` returns them.

        This uses the weights that the model would have after `finish`, in float32.
        """
        loss, n_correct = self._count(images, labels)
        return float(loss) / len(labels), int(n_correct)

    def _run(self, indices: Any, scalars: Any, first_step: Any) -> Any:
        import tensorflow as tf

        n_steps = tf.shape(indices)[0]
        losses = tf.TensorArray(tf.float32, n_steps)
        hits = tf.TensorArray(tf.int32, n_steps)

        def body(i: Any, losses: Any, hits: Any) -> Any:
            step = first_step + tf.cast(i, tf.int64)
            pixels, labels = self._batch(indices[i], step)
            loss, n_correct = self._take_step(pixels, labels, step, scalars[i])
            return i + 1, losses.write(i, loss), hits.write(i, n_correct)

        _, losses, hits = tf.while_loop(
            lambda i, *_: i < n_steps,
            body,
            (0, losses, hits),
            parallel_iterations=1,
        )
        return losses.stack(), hits.stack()

    def _batch(self, indices: Any, step: Any) -> tuple[Any, Any]:
        """Return the pixels of one batch, float32 and augmented, and its labels."""
        import tensorflow as tf

        pixels = tf.cast(tf.gather(self._images, indices), tf.float32)
        pixels = augment.transform(pixels, self._settings, self._stream(step, _AUGMENT_STREAM))
        return pixels, tf.gather(self._labels, indices)

    def _step(self, pixels: Any, labels: Any, step: Any, scalars: Any) -> tuple[Any, Any]:
        """Take one optimizer step on one batch; return its mean cross-entropy and its hits."""
        import tensorflow as tf

        rate, power1, power2, mixing = tf.unstack(scalars)
        weights = list(self._weights.values())
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            logits = forward.logits(
                self._layers,
                self._weights,
                pixels,
                self._settings.precision,
                self._dropout(step),
                self._xla,
            )
            measured = loss = tf.reduce_mean(_losses(tf, logits, labels))
            if self._settings.label_smoothing:
                smoothed = _losses(tf, logits, labels, self._settings.label_smoothing)
                loss = tf.reduce_mean(smoothed)
        gradients = tape.gradient(loss, weights)
        step_scalars = optimizers.StepScalars(rate, power1, power2)
        updates = [
            self._optimizer.update(self._weights[name], slots, gradient, step_scalars)
            for (name, slots), gradient in zip(self._slots.items(), gradients, strict=True)
        ]
        with tf.control_dependencies(updates):
            averaged = [
                average.assign_add(mixing * (self._weights[name] - average), read_value=False)
                for name, average in self._averages.items()
            ]
        with tf.control_dependencies([*updates, *averaged]):
            return tf.identity(measured), _hits(tf, logits, labels)

    def _dropout(self, step: Any) -> forward.Drop:
        """Return the dropout of one step, seeded by (seed, step)."""
        import tensorflow as tf

        if not self._settings.dropout:
            return forward.keep_all
        return lambda values: tf.nn.experimental.stateless_dropout(
            values,
            self._settings.dropout,
            self._stream(step, _DROPOUT_STREAM),
            rng_alg="philox",
        )

    def _stream(self, step: Any, stream: int) -> Any:
        """Return the stateless seed of one random stream, dropout or augmentation, in one step."""
        import tensorflow as tf

        return tf.stack([tf.constant(self._seed, tf.int64), step * _N_STREAMS + stream])

    def _count_correct(self, images: Any, labels: Any) -> Any:
        import tensorflow as tf

        n = tf.shape(labels)[0]
        weights = self._averages or self._weights

        def body(start: Any, loss: Any, n_correct: Any) -> Any:
            part = slice(start, start + _EVALUATION_BATCH)
            logits = forward.logits(self._layers, weights, images[part], "float32")
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


def by_name(model: Model) -> dict[str, Any]:
    """Return the trainable variables of a keras.Model, with keys such as "conv1/kernel"."""
    return {
        f"{layer.name}/{weight.name}": weight.value
        for layer in model.layers
        for weight in layer.trainable_weights
    }


def _losses(tf: Any, logits: Any, labels: Any, smoothing: float = 0.0) -> Any:
    """Return each image's cross-entropy (n,), in nats; smoothing as in Szegedy et al. 2016."""
    if not smoothing:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    n_classes = logits.shape[1]
    shares = tf.one_hot(
        labels, n_classes, 1 - smoothing + smoothing / n_classes, smoothing / n_classes
    )
    return tf.nn.softmax_cross_entropy_with_logits(labels=shares, logits=logits)


def _hits(tf: Any, logits: Any, labels: Any) -> Any:
    predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
    return tf.reduce_sum(tf.cast(predicted == labels, tf.int32))
