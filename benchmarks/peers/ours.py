"""Our loop: many steps in one graph."""

from benchmarks.peers import Steps, images, labels
from cnn.config import RuntimeConfig
from cnn.train import device, loop, model, recipes

_BLOCK = 25  # steps, as cnn.train.fit runs them


def start(batch_size: int, precision: str = "float32", determinism: str = "on") -> Steps:
    """Return what trains the recipe `spec`."""
    device.prepare(RuntimeConfig())
    if determinism == "off":
        from tensorflow.python.framework import config

        config.disable_op_determinism()
    settings = recipes.SPEC.model_copy(update={"batch_size": batch_size, "precision": precision})
    network = model.build(settings, (28, 28, 1), 10, seed=0)
    training = loop.Loop(network, settings, 0, images(), labels())
    done = 0

    def steps(n: int) -> None:
        nonlocal done
        for first in range(done, done + n, _BLOCK):
            training.run(first, min(_BLOCK, done + n - first))
        done += n

    return steps
