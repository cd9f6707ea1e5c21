"""The optimizers, as fused TensorFlow operations: one pass over weights, slots and gradient.

Adam: Kingma and Ba 2015, with epsilon outside the bias correction (section 2, last paragraph).
SGD with Nesterov momentum: Sutskever et al. 2013. RMSprop: Tieleman and Hinton 2012.
Weight decay: decoupled from the gradient (Loshchilov and Hutter 2019), for kernels only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cnn.config.training import Training

# The settings that each optimizer uses besides learning rate and weight decay.
USED = {
    "adam": {"beta1", "beta2", "epsilon"},
    "sgd": {"momentum"},
    "rmsprop": {"beta2", "epsilon", "momentum"},
}
Update = Callable[[Any, Sequence[Any], Any, "StepScalars"], Any]


@dataclass(frozen=True)
class StepScalars:
    """The scalars of step t, counted from 1: learning rate, beta1 ** t and beta2 ** t."""

    rate: Any
    beta1_power: Any
    beta2_power: Any


@dataclass(frozen=True)
class Optimizer:
    """The number of slots per weight, and the operation that updates one weight."""

    n_slots: int
    update: Update


def of(settings: Training) -> Optimizer:
    """Return the optimizer that the settings name."""
    match settings.optimizer:
        case "adam":
            plain = Optimizer(2, _adam(settings))
        case "sgd":
            plain = Optimizer(1, _nesterov(settings))
        case "rmsprop":
            plain = Optimizer(2, _rmsprop(settings))
    return _decaying(plain, settings.weight_decay) if settings.weight_decay else plain


def _decaying(plain: Optimizer, decay: float) -> Optimizer:
    import tensorflow as tf

    def update(weight: Any, slots: Sequence[Any], gradient: Any, step: StepScalars) -> Any:
        if weight.shape.rank == 1:  # a bias
            return plain.update(weight, slots, gradient, step)
        shrunk = weight.assign(weight * (1 - step.rate * decay), read_value=False)
        with tf.control_dependencies([shrunk]):
            return plain.update(weight, slots, gradient, step)

    return Optimizer(plain.n_slots, update)


def _adam(settings: Training) -> Update:
    import tensorflow as tf

    def update(weight: Any, slots: Sequence[Any], gradient: Any, step: StepScalars) -> Any:
        mean, square = slots
        return tf.raw_ops.ResourceApplyAdam(
            var=weight.handle,
            m=mean.handle,
            v=square.handle,
            beta1_power=step.beta1_power,
            beta2_power=step.beta2_power,
            lr=step.rate,
            beta1=settings.beta1,
            beta2=settings.beta2,
            epsilon=settings.epsilon,
            grad=gradient,
        )

    return update


def _nesterov(settings: Training) -> Update:
    import tensorflow as tf

    def update(weight: Any, slots: Sequence[Any], gradient: Any, step: StepScalars) -> Any:
        (velocity,) = slots
        return tf.raw_ops.ResourceApplyMomentum(
            var=weight.handle,
            accum=velocity.handle,
            lr=step.rate,
            grad=gradient,
            momentum=settings.momentum,
            use_nesterov=True,
        )

    return update


def _rmsprop(settings: Training) -> Update:
    import tensorflow as tf

    def update(weight: Any, slots: Sequence[Any], gradient: Any, step: StepScalars) -> Any:
        square, velocity = slots
        return tf.raw_ops.ResourceApplyRMSProp(
            var=weight.handle,
            ms=square.handle,
            mom=velocity.handle,
            lr=step.rate,
            rho=settings.beta2,
            momentum=settings.momentum,
            epsilon=settings.epsilon,
            grad=gradient,
        )

    return update
