"""The named recipes: each a complete set of training settings."""

from collections.abc import Mapping
from typing import Any

from cnn.config.run import RecipeChoice, RecipeName
from cnn.config.training import Training
from cnn.errors import ConfigError
from cnn.train import precision
from cnn.train.optimizers import USED

NOTEBOOK = Training(
    steps=3000,
    batch_size=50,
    learning_rate=1e-4,
    schedule="constant",
    warmup_fraction=0.0,
    beta2=0.999,
    # The notebook creates biases for both convolutions but never adds them.
    conv_bias=False,
    # It also puts a ReLU on the logits, which its text does not mention.
    logits_activation="relu",
    # It measures the test images while it trains.
    log_split="test",
)
SPEC = NOTEBOOK.model_copy(
    update={"conv_bias": True, "logits_activation": "none", "log_split": "validation"}
)
# The values of `fast` and `best` come from a sweep: docs/training.md.
FAST = SPEC.model_copy(
    update={
        "steps": 160,
        "batch_size": 64,
        "learning_rate": 8e-3,
        "schedule": "linear",
        "warmup_fraction": 0.2,
        "beta1": 0.8,
        "beta2": 0.98,
        "dropout": 0.0,
        "label_smoothing": 0.1,
        "precision": "auto",
    }
)
BEST = SPEC.model_copy(
    update={
        "steps": 30_000,
        "batch_size": 128,
        "learning_rate": 1.5e-3,
        "schedule": "one-cycle",
        "warmup_fraction": 0.2,
        "beta2": 0.98,
        "weight_decay": 0.05,
        "dropout": 0.4,
        "label_smoothing": 0.1,
        "augment_shift": 2.5,
        "augment_rotation": 15.0,
        "augment_scale": 0.15,
        "augment_shear": 10.0,
        "precision": "auto",
        "log_every": 500,
    }
)
RECIPES: dict[RecipeName, Training] = {
    "notebook": NOTEBOOK,
    "spec": SPEC,
    "fast": FAST,
    "best": BEST,
}


def resolve(choice: RecipeChoice) -> Training:
    """Return the complete settings of a recipe with its overrides, for this processor.

    Raises ConfigError for an override that has no effect.
    """
    complete = RECIPES[choice.recipe].model_dump() | choice.overrides()
    training = precision.resolved(Training.model_validate(complete))
    _refuse_idle(choice.overrides(), training)
    return training


def _refuse_idle(overrides: Mapping[str, Any], training: Training) -> None:
    used = USED[training.optimizer]
    for name in sorted(set(overrides) & set().union(*USED.values()) - used):
        raise ConfigError(
            f"train.{name}: {training.optimizer} does not use it; it uses {', '.join(sorted(used))}"
        )
    if (
        "schedule" in overrides
        and training.schedule == "one-cycle"
        and not training.warmup_fraction
    ):
        raise ConfigError(
            "train.warmup_fraction: 0 is refused with one-cycle, which starts with a rise; set it "
            "to the share of steps in that rise, such as 0.2"
        )
