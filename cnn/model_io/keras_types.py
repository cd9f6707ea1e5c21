"""Types for the parts of Keras models and layers in use, without importing Keras."""

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray


class Layer(Protocol):
    """A keras.Layer; `input` and `output` are its symbolic tensors."""

    @property
    def name(self) -> str:
        """Name of the layer within its model."""

    @property
    def input(self) -> Any:
        """Symbolic input."""

    @property
    def output(self) -> Any:
        """Symbolic output."""

    @property
    def trainable_weights(self) -> Sequence[Any]:
        """Variables that training changes."""

    def __call__(self, values: Any, /) -> Any:
        """Return the layer's output for a tensor, symbolic or not."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that the layer was created with."""

    def get_weights(self) -> list[NDArray[Any]]:
        """Return copies of the weights: the kernel, then the bias, if there are any."""


class Model(Protocol):
    """A keras.Model."""

    @property
    def layers(self) -> Sequence[Layer]:
        """All layers, from the input up."""

    @property
    def inputs(self) -> Sequence[Any]:
        """Symbolic inputs."""

    def __call__(self, values: Any, /, training: bool = False) -> Any:
        """Return the model's output for a tensor."""

    def get_layer(self, name: str) -> Layer:
        """Return the layer with this name."""

    def count_params(self) -> int:
        """Return the number of weights."""

    def save(self, path: Any) -> None:
        """Write the model as an archive."""
