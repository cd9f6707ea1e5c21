"""The recipes, and the overrides that change them."""

from typing import Any, get_args

import pytest

from cnn.config.run import RecipeName, TrainConfig
from cnn.config.training import Training
from cnn.errors import ConfigError
from cnn.train import precision, recipes


def test_every_recipe_is_a_complete_and_legal_training() -> None:
    """Recipes pass the same validation as their overrides."""
    assert set(recipes.RECIPES) == set(get_args(RecipeName))
    for recipe in recipes.RECIPES.values():
        assert Training.model_validate(recipe.model_dump()) == recipe
        assert recipe.model_dump().keys() == Training.model_fields.keys()


def test_spec_differs_from_notebook_only_in_the_mistakes_of_the_coursework_code() -> None:
    """Its code has no convolution bias, a ReLU on the logits, and logs test accuracy."""
    notebook, spec = recipes.NOTEBOOK.model_dump(), recipes.SPEC.model_dump()
    assert {
        name: (notebook[name], spec[name]) for name in spec if notebook[name] != spec[name]
    } == {
        "conv_bias": (False, True),
        "logits_activation": ("relu", "none"),
        "log_split": ("test", "validation"),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"momentum": 0.5}, "train.momentum: adam does not use it; it uses beta1, beta2, epsilon"),
        ({"optimizer": "sgd", "beta1": 0.8}, "train.beta1: sgd does not use it; it uses momentum"),
        ({"optimizer": "sgd", "epsilon": 0.1}, "train.epsilon: sgd does not use it"),
        ({"optimizer": "rmsprop", "beta1": 0.8}, "train.beta1: rmsprop does not use it"),
        ({"recipe": "spec", "schedule": "one-cycle"}, "train.warmup_fraction: 0 is refused"),
        ({"schedule": "one-cycle", "warmup_fraction": 0.0}, "train.warmup_fraction: 0 is refused"),
    ],
)
def test_an_override_without_effect_is_refused(changes: dict[str, Any], message: str) -> None:
    """The message says which settings would have an effect."""
    with pytest.raises(ConfigError) as caught:
        recipes.resolve(TrainConfig(**changes))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.5, "optimizer": "sgd"},
        {"momentum": 0.5, "optimizer": "rmsprop", "beta2": 0.9},
        {"beta1": 0.8, "beta2": 0.9, "epsilon": 0.1},
        {"optimizer": "sgd", "weight_decay": 0.1},
        {"schedule": "one-cycle"},
        {"recipe": "best", "steps": 5},
        *(
            {"recipe": recipe, "seed": 5, "steps": 7, "conv_bias": False, "warmup_fraction": 0.0}
            for recipe in get_args(RecipeName)
        ),
    ],
)
def test_overrides_replace_the_recipes_values_and_nothing_else(changes: dict[str, Any]) -> None:
    """Zero and false are overrides too."""
    choice = TrainConfig(**changes)
    overrides = {name: changes[name] for name in changes if name not in ("recipe", "seed")}
    recipe = precision.resolved(recipes.RECIPES[choice.recipe])
    assert recipes.resolve(choice).model_dump() == recipe.model_dump() | overrides
