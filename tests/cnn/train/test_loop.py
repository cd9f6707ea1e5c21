"""The training loop: exact steps of every optimizer, in blocks of any length."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnn.config.training import Training
from cnn.data.dataset import Dataset, Split
from cnn.train import loop, networks, optimizers, recipes, schedule

pytestmark = pytest.mark.usefixtures("prepared")

SEED = 3


def _network(settings: Training, n_classes: int = 10) -> Any:
    return networks.build(settings, (28, 28, 1), n_classes, SEED)


def _run(
    settings: Training, split: Split, lengths: list[int], xla: bool = False
) -> tuple[list[Any], loop.Block]:
    """Return weights and measurements after blocks of these lengths."""
    network = _network(settings)
    training = loop.Loop(network, settings, SEED, split.images, split.labels, xla)
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    blocks = [training.run(start, n) for start, n in zip(starts, lengths, strict=True)]
    measured = loop.Block(
        np.concatenate([block.losses for block in blocks]),
        np.concatenate([block.n_correct for block in blocks]),
    )
    training.finish()
    return network.get_weights(), measured


def _reference(settings: Training, split: Split, n_steps: int) -> tuple[list[Any], loop.Block]:
    """Return the same from an eager loop: gradients by Keras, steps by NumPy."""
    import keras
    import tensorflow as tf

    network = _network(settings)
    head = keras.Model(network.inputs[0], network.get_layer("logits").output)
    take = {"adam": _adam, "sgd": _nesterov, "rmsprop": _rmsprop}[settings.optimizer]
    slots = [np.zeros((2, *weight.shape)) for weight in head.get_weights()]
    averages = [np.float64(weight) for weight in head.get_weights()]
    rates = schedule.learning_rates(settings, 0, n_steps)
    losses, hits = [], []
    drawn = schedule.batches(SEED, len(split), settings.batch_size, 0, n_steps)
    for t, indices in enumerate(drawn, start=1):
        labels = split.labels[indices]
        with tf.GradientTape() as tape:
            logits = head(split.images[indices].astype(np.float32), training=False)
            plain, loss = (
                keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)(
                    np.eye(logits.shape[1])[labels], logits
                )
                for smoothing in (0.0, settings.label_smoothing)
            )
        gradients = [
            np.float64(part)
            for part in tape.gradient(loss, [w.value for w in head.trainable_variables])
        ]
        losses.append(float(plain))
        hits.append(int((np.argmax(logits, axis=1) == labels).sum()))
        weights = []
        for weight, gradient, of_weight in zip(head.get_weights(), gradients, slots, strict=True):
            shrink = settings.weight_decay * rates[t - 1] if weight.ndim > 1 else 0
            step = take(settings, of_weight, gradient, rates[t - 1], t)
            weights.append(weight * (1 - shrink) - step)
        head.set_weights(weights)
        decay = min(settings.ema_decay, t / (9 + t))
        averages = [
            decay * average + (1 - decay) * weight
            for average, weight in zip(averages, weights, strict=True)
        ]
    result = averages if settings.ema_decay else head.get_weights()
    return result, loop.Block(np.float32(losses), np.int32(hits))


def _assert_equal(
    actual: tuple[list[Any], loop.Block], expected: tuple[list[Any], loop.Block]
) -> None:
    """Assert that weights and measurements are equal, up to the rounding of float32."""
    for weight, other in zip(actual[0], expected[0], strict=True):
        np.testing.assert_allclose(weight, other, rtol=0, atol=1e-5)
    np.testing.assert_allclose(actual[1].losses, expected[1].losses, rtol=1e-5)
    np.testing.assert_array_equal(actual[1].n_correct, expected[1].n_correct)


def _adam(settings: Training, slots: Any, gradient: Any, rate: Any, t: int) -> Any:
    """Adam as TensorFlow 1 had it: epsilon is added to the root of the raw second moment."""
    beta1, beta2 = settings.beta1, settings.beta2
    slots[0] = beta1 * slots[0] + (1 - beta1) * gradient
    slots[1] = beta2 * slots[1] + (1 - beta2) * gradient**2
    corrected = rate * np.sqrt(1 - beta2**t) / (1 - beta1**t)
    return corrected * slots[0] / (np.sqrt(slots[1]) + settings.epsilon)


def _nesterov(settings: Training, slots: Any, gradient: Any, rate: Any, t: int) -> Any:
    slots[0] = settings.momentum * slots[0] + gradient
    return rate * (gradient + settings.momentum * slots[0])


def _rmsprop(settings: Training, slots: Any, gradient: Any, rate: Any, t: int) -> Any:
    slots[0] = settings.beta2 * slots[0] + (1 - settings.beta2) * gradient**2
    root = np.sqrt(slots[0] + settings.epsilon)
    slots[1] = settings.momentum * slots[1] + rate * gradient / root
    return np.array(slots[1])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"schedule": "cosine", "warmup_fraction": 0.5, "beta1": 0.5, "beta2": 0.9},
        {"epsilon": 0.05, "logits_activation": "relu", "conv_bias": False},
        {"optimizer": "sgd", "momentum": 0.8, "learning_rate": 0.02},
        {"optimizer": "rmsprop", "momentum": 0.5, "beta2": 0.9, "epsilon": 1e-3},
        {"weight_decay": 0.9, "learning_rate": 0.05, "epsilon": 1e-3, "schedule": "one-cycle"},
        {"optimizer": "sgd", "weight_decay": 0.5, "learning_rate": 0.02},
        {"label_smoothing": 0.2},
        {"ema_decay": 0.3, "label_smoothing": 0.1},
    ],
    ids=[
        *("plain", "schedule-and-betas", "large-epsilon-as-notebook", "sgd", "rmsprop"),
        *("adamw", "sgd-with-decay", "smoothed", "averaged"),
    ],
)
def test_without_dropout_the_loop_equals_a_plain_implementation(
    digits: Dataset, small: Training, changes: dict[str, Any]
) -> None:
    """Weights, losses and hits of 5 steps equal those of eager Keras and an optimizer in NumPy."""
    settings = small.model_copy(update={"dropout": 0.0, "steps": 5, **changes})
    weights, measured = _run(settings, digits.splits["train"], [5])
    _assert_equal((weights, measured), _reference(settings, digits.splits["train"], 5))
    initial = _network(settings).get_weights()
    assert all((weight != start).any() for weight, start in zip(weights, initial, strict=True))


def test_the_full_architecture_equals_a_plain_implementation(digits: Dataset) -> None:
    """The same for the notebook's sizes and its learning rate, 3 steps."""
    settings = recipes.SPEC.model_copy(update={"dropout": 0.0, "steps": 3})
    train = digits.splits["train"]
    _assert_equal(_run(settings, train, [3]), _reference(settings, train, 3))


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_xla_computes_the_same_steps(digits: Dataset, small: Training, optimizer: str) -> None:
    """Only rounding differs; dropout is off, because XLA draws its own."""
    settings = small.model_copy(
        update={
            "dropout": 0.0,
            **{"optimizer": optimizer, "epsilon": 1e-3, "weight_decay": 0.1, "ema_decay": 0.5},
            **{"label_smoothing": 0.1, "augment_shift": 2.0, "augment_rotation": 10.0},
        }
    )
    train = digits.splits["train"]
    _assert_equal(_run(settings, train, [4], xla=True), _run(settings, train, [4]))


def test_xla_drops_units_by_seed_and_step(digits: Dataset, small: Training) -> None:
    """Two runs with dropout are equal, and a run without it differs."""
    train = digits.splits["train"]
    _, dropped = _run(small.model_copy(update={"dropout": 0.5}), train, [3], xla=True)
    _, again = _run(small.model_copy(update={"dropout": 0.5}), train, [1, 2], xla=True)
    _, whole = _run(small.model_copy(update={"dropout": 0.0}), train, [3], xla=True)
    np.testing.assert_array_equal(dropped.losses, again.losses)
    assert (dropped.losses != whole.losses).all()


def test_blocks_of_any_length_give_the_same_bytes(digits: Dataset, small: Training) -> None:
    """Dropout and augmentation are functions of seed and step, not of the block."""
    settings = small.model_copy(
        update={"augment_shift": 2.0, "augment_rotation": 10.0, "augment_scale": 0.1}
    )
    weights, measured = _run(settings, digits.splits["train"], [6])
    for lengths in ([1, 1, 1, 1, 1, 1], [4, 2], [1, 3, 2]):
        others, again = _run(settings, digits.splits["train"], lengths)
        assert [w.tobytes() for w in others] == [w.tobytes() for w in weights]
        np.testing.assert_array_equal(again.losses, measured.losses)
        np.testing.assert_array_equal(again.n_correct, measured.n_correct)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("augment_shift", 0.5), ("augment_rotation", 0.5), ("augment_scale", 0.5)),
        *(("augment_shear", 20.0), ("dropout", 0.5)),
    ],
)
def test_dropout_and_each_augmentation_reach_the_training(
    digits: Dataset, small: Training, name: str, value: float
) -> None:
    """Each of them changes the loss of the very first step."""
    plain = small.model_copy(update={"dropout": 0.0})
    _, without = _run(plain, digits.splits["train"], [1])
    _, measured = _run(plain.model_copy(update={name: value}), digits.splits["train"], [1])
    assert measured.losses[0] != without.losses[0]


def _kept_units(small: Training, dropout: float, seed: int) -> NDArray[Any]:
    """Return how many of dense1's 50 units each of 40 steps kept, computed from the loss."""
    n_units, n_steps = 50, 40
    changes = {"dropout": dropout, "dense1_units": n_units, "learning_rate": 0.0}
    settings = small.model_copy(update={**changes, "batch_size": 1, "steps": n_steps})
    network = _network(settings, n_classes=2)
    # dense1 is 1 everywhere; the logits are (mean of its units after dropout, 0).
    dense1, logits = network.get_layer("dense1"), network.get_layer("logits")
    dense1.set_weights([np.zeros(dense1.kernel.shape), np.ones(n_units)])
    kernel = np.stack([np.full(n_units, 1 / n_units), np.zeros(n_units)], axis=1)
    logits.set_weights([kernel, np.zeros(2)])
    images, labels = np.zeros((1, 28, 28, 1), np.uint8), np.zeros(1, np.int64)
    losses = loop.Loop(network, settings, seed, images, labels).run(0, n_steps).losses
    means = -np.log(np.expm1(np.float64(losses)))
    return np.asarray(means * n_units * (1 - dropout))


@pytest.mark.parametrize("dropout", [0.2, 0.5])
def test_dropout_drops_its_share_and_scales_the_rest(small: Training, dropout: float) -> None:
    """The numbers of units kept are whole, around their share, and differ between steps."""
    kept = _kept_units(small, dropout, 0)
    np.testing.assert_allclose(kept, np.rint(kept), atol=1e-3)
    assert kept.mean() == pytest.approx(50 * (1 - dropout), abs=2.5)
    assert len(set(np.rint(kept))) > 5
    assert (np.rint(_kept_units(small, dropout, 1)) != np.rint(kept)).any()
    np.testing.assert_array_equal(_kept_units(small, dropout, 0), kept)


def test_evaluation_counts_every_image_without_dropout(digits: Dataset, small: Training) -> None:
    """Loss and hits of 1,412 images, more than one batch, equal a single forward pass."""
    import keras

    train = digits.splits["train"]
    network = _network(small)
    training = loop.Loop(network, small, SEED, train.images, train.labels)
    loss, n_correct = training.evaluate(*loop.hold(train.images, train.labels))
    probabilities = network.predict(train.images.astype(np.float32), verbose=0)
    assert n_correct == (probabilities.argmax(axis=1) == train.labels).sum()
    expected = keras.losses.sparse_categorical_crossentropy(train.labels, probabilities)
    assert loss == pytest.approx(float(np.mean(expected, dtype=np.float64)), rel=1e-4)


def test_the_moving_average_is_evaluated_and_saved(digits: Dataset, small: Training) -> None:
    """The history describes the final model, with averaged weights, not the weights in training."""
    train = digits.splits["train"]
    settings = small.model_copy(update={"ema_decay": 0.9, "learning_rate": 0.01})
    network = _network(settings)
    training = loop.Loop(network, settings, SEED, train.images, train.labels)
    training.run(0, 6)
    held = loop.hold(train.images, train.labels)
    before, weights = training.evaluate(*held), network.get_weights()
    training.finish()
    assert any((a != b).any() for a, b in zip(network.get_weights(), weights, strict=True))
    plain = loop.Loop(network, small, SEED, train.images, train.labels)
    assert plain.evaluate(*held) == before


def test_bfloat16_trains_with_rounding_and_leaves_a_float32_model(
    digits: Dataset, small: Training
) -> None:
    """Losses differ from float32's only by rounding; weights and evaluation are float32."""
    train = digits.splits["train"]
    _, exact = _run(small, train, [6])
    settings = small.model_copy(update={"precision": "bfloat16"})
    weights, rounded = _run(settings, train, [6])
    assert (rounded.losses != exact.losses).any()
    np.testing.assert_allclose(rounded.losses, exact.losses, rtol=0.03)
    assert {weight.dtype for weight in weights} == {np.dtype("float32")}
    network = _network(settings)
    held = loop.hold(train.images, train.labels)
    both = [
        loop.Loop(network, each, SEED, train.images, train.labels).evaluate(*held)
        for each in (settings, small)
    ]
    assert both[0] == both[1]


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_an_optimizer_uses_the_settings_listed_for_it(
    digits: Dataset, small: Training, optimizer: str
) -> None:
    """Each of them changes the weights, and no other setting does."""
    split = digits.splits["train"]
    settings = small.model_copy(update={"optimizer": optimizer, "momentum": 0.5, "dropout": 0.0})
    plain, _ = _run(settings, split, [3])
    changes = {"beta1": 0.5, "beta2": 0.5, "epsilon": 0.1, "momentum": 0.8}
    effective = set()
    for name, value in changes.items():
        weights, _ = _run(settings.model_copy(update={name: value}), split, [3])
        if any((a != b).any() for a, b in zip(weights, plain, strict=True)):
            effective.add(name)
    assert effective == optimizers.USED[optimizer]
