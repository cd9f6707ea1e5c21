"""The kinds of layers, each in two forms: as the training computes it, and as Keras saves it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, Protocol

Size = tuple[int, int]  # height and width
Initial = Callable[[str], dict[str, Any]]  # a layer's name to Keras's arguments for its weights


@dataclass(frozen=True)
class Pass:
    """One pass through the layers.

    weights: by layer and name, "conv1/kernel", in the dtype of the pass. drop: what becomes of the
    units of a dropout. xla: whether XLA compiles the pass.
    """

    weights: Mapping[str, Any]
    drop: Callable[[Any], Any]
    xla: bool

    def with_bias(self, values: Any, layer: str) -> Any:
        """Return values plus the layer's bias, if it has one."""
        import tensorflow as tf

        bias = self.weights.get(f"{layer}/bias")
        return values if bias is None else tf.nn.bias_add(values, bias)


class Layer(Protocol):
    """What each kind of layer has."""

    @property
    def name(self) -> str:
        """Name of the layer, and of its weights."""

    def apply(self, values: Any, given: Pass) -> Any:
        """Return the layer's output, in the dtype of the pass."""

    def to_keras(self, initial: Initial) -> Any:
        """Return the layer as a keras.Layer."""

    def map_size(self, size: Size) -> Size | None:
        """Return the size of the maps for an input of some size; None where they are no maps."""


@dataclass(frozen=True)
class Convolution:
    """A convolution with a ReLU; kernel and stride are those of both axes."""

    name: str
    n_filters: int
    kernel: int
    stride: int = 1
    padding: Literal["valid", "same"] = "valid"
    use_bias: bool = True

    def apply(self, values: Any, given: Pass) -> Any:
        """Return the activations (n, h, w, filters)."""
        import tensorflow as tf

        kernel = given.weights[f"{self.name}/kernel"]
        values = tf.nn.conv2d(values, kernel, self.stride, self.padding.upper())
        return tf.nn.relu(given.with_bias(values, self.name))

    def to_keras(self, initial: Initial) -> Any:
        """Return a Conv2D."""
        import keras

        return keras.layers.Conv2D(
            self.n_filters,
            self.kernel,
            strides=self.stride,
            padding=self.padding,
            activation="relu",
            use_bias=self.use_bias,
            name=self.name,
            **initial(self.name),
        )

    def map_size(self, size: Size) -> Size:
        """Return the size of the maps; 0 or less where the kernel does not fit."""
        covered = self.kernel if self.padding == "valid" else 1
        height, width = ((side - covered) // self.stride + 1 for side in size)
        return height, width


@dataclass(frozen=True)
class MaxPool:
    """The largest of every 2 x 2 units."""

    name: str

    def apply(self, values: Any, given: Pass) -> Any:
        """Return the largest activations (n, h / 2, w / 2, channels)."""
        import tensorflow as tf

        return pooled(values) if given.xla else tf.nn.max_pool2d(values, 2, 2, "VALID")

    def to_keras(self, initial: Initial) -> Any:
        """Return a MaxPooling2D."""
        import keras

        return keras.layers.MaxPooling2D(2, name=self.name)

    def map_size(self, size: Size) -> Size:
        """Return half the size; an odd side's last line is left out."""
        return size[0] // 2, size[1] // 2


@dataclass(frozen=True)
class Flatten:
    """Maps as one row of units."""

    name: str

    def apply(self, values: Any, given: Pass) -> Any:
        """Return the values as (n, units)."""
        import tensorflow as tf

        return tf.reshape(values, (-1, values.shape[1] * values.shape[2] * values.shape[3]))

    def to_keras(self, initial: Initial) -> Any:
        """Return a Flatten."""
        import keras

        return keras.layers.Flatten(name=self.name)

    def map_size(self, size: Size) -> None:
        """Return None: units are no maps."""


@dataclass(frozen=True)
class Dense:
    """A dense layer, with or without a ReLU."""

    name: str
    n_units: int
    relu: bool = True

    def apply(self, values: Any, given: Pass) -> Any:
        """Return the activations (n, units)."""
        import tensorflow as tf

        values = given.with_bias(_product(values, given.weights[f"{self.name}/kernel"]), self.name)
        return tf.nn.relu(values) if self.relu else values

    def to_keras(self, initial: Initial) -> Any:
        """Return a Dense."""
        import keras

        activation = "relu" if self.relu else None
        return keras.layers.Dense(
            self.n_units, activation=activation, name=self.name, **initial(self.name)
        )

    def map_size(self, size: Size) -> None:
        """Return None: units are no maps."""


@dataclass(frozen=True)
class Dropout:
    """A share of the units, drawn in each step of the training, is 0."""

    name: str
    rate: float

    def apply(self, values: Any, given: Pass) -> Any:
        """Return the values as the pass drops them."""
        return given.drop(values)

    def to_keras(self, initial: Initial) -> Any:
        """Return a Dropout."""
        import keras

        return keras.layers.Dropout(self.rate, name=self.name)

    def map_size(self, size: Size) -> None:
        """Return None: units are no maps."""


def pooled(values: Any) -> Any:
    """Return what max_pool2d does; XLA for GPUs has no deterministic gradient of that one."""
    import tensorflow as tf

    height, width = (side - side % 2 for side in values.shape[1:3])
    whole = values[:, :height, :width]
    return reduce(tf.maximum, [whole[:, y::2, x::2] for y in (0, 1) for x in (0, 1)])


def _product(values: Any, kernel: Any) -> Any:
    """Return values @ kernel, (n, o), with a faster gradient than matmul's own.

    For the transposed kernel oneDNN's product behind einsum takes a third of the time of the
    one behind matmul, at 50 images and 1024 units; forward, matmul is the faster one.
    """
    import tensorflow as tf

    def product(values: Any, kernel: Any) -> Any:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            of_values = tf.einsum("no,io->ni", upstream, kernel)
            return of_values, tf.matmul(values, upstream, transpose_a=True)

        return tf.matmul(values, kernel), gradient

    return tf.custom_gradient(product)(values, kernel)
