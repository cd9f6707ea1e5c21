"""A layer of two models with its filters matched, for tests of the comparison."""

import numpy as np

from cnn.compare.comparison import LayerView
from cnn.compare.matching import Pair
from cnn.explain.patches import Patches

PAIRS = [
    Pair(0, 1, "same", 0.97),
    Pair(1, 0, "changed", 0.5),
    Pair(2, 3, "dead"),
    Pair(3, None, "lost"),
    Pair(None, 2, "new"),
]
Shape = tuple[int, int, int]


def layer_view(
    rng: np.random.Generator,
    kernel: Shape,
    silent: tuple[int, ...] = (),
    patch: Shape | None = None,
) -> LayerView:
    """Return a layer of four filters, applied to the pixels unless the patch has another shape.

    silent: the filters that never fire.
    """
    pixels = rng.integers(1, 255, (4, 4, *(patch or kernel)), np.uint8)
    rows = [
        {"filter": f, "rank": rank, "activation": 5.0 - rank}
        for f in range(4)
        if f not in silent
        for rank in range(1, 4)  # the fourth position does not fire
    ]
    kernels = rng.normal(0, 1, (4, *kernel)).astype(np.float32)
    return LayerView(kernels, Patches("conv1", rows, {"patches": pixels}))
