"""Augmentation moves pixels as scipy.ndimage does, by amounts within the settings."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, optimize

from cnn.config.training import Training
from cnn.train import augment, recipes

pytestmark = pytest.mark.usefixtures("prepared")


def _settings(**changes: float) -> Training:
    return recipes.SPEC.model_copy(update=changes)


def _transform(images: NDArray[Any], settings: Training, seed: tuple[int, int] = (0, 0)) -> Any:
    import tensorflow as tf

    pixels = tf.constant(images, tf.float32)
    return augment.transform(pixels, settings, tf.constant(seed, tf.int64)).numpy()


def _blobs(n: int, height: int = 28, width: int = 34) -> NDArray[np.float32]:
    """Return images (n, height, width, 1) of one lopsided, smooth blob far from the edges."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y, x = y - height / 2 + 1, x - width / 2 - 2
    blob = np.exp(-(y**2) / 8 - x**2 / 5) + 0.7 * np.exp(-((y - 3) ** 2 + (x - 2) ** 2) / 3)
    return np.repeat((200 * blob)[None, :, :, None], n, axis=0).astype(np.float32)


def _centre(image: NDArray[Any]) -> NDArray[np.float64]:
    return np.array(ndimage.center_of_mass(np.float64(image[..., 0])))


def test_without_augmentation_images_are_unchanged(rng: np.random.Generator) -> None:
    """With all settings at 0, no pixel changes."""
    images = rng.uniform(0, 255, (4, 28, 28, 3)).astype(np.float32)
    np.testing.assert_array_equal(_transform(images, _settings()), images)


def test_a_shift_moves_every_pixel_alike() -> None:
    """Each image equals scipy's shift by the distance that its centre of mass moved."""
    images = _blobs(50)
    moved = _transform(images, _settings(augment_shift=3.0))
    shifts = np.array([_centre(image) for image in moved]) - _centre(images[0])
    for image, shift in zip(moved, shifts, strict=True):
        expected = ndimage.shift(images[0, ..., 0], shift, order=1, mode="grid-constant")
        np.testing.assert_allclose(image[..., 0], expected, atol=0.05)
    assert np.abs(shifts).max() <= 3
    assert (shifts.min(axis=0) < -2).all(), "no image went far up or left"
    assert (shifts.max(axis=0) > 2).all(), "no image went far down or right"
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.5, "x and y must be drawn independently"


def test_pixels_from_outside_are_black() -> None:
    """A shifted white image has black edges and is white inside."""
    white = np.full((30, 20, 20, 1), 255, np.float32)
    moved = _transform(white, _settings(augment_shift=4.0))
    inside = moved[:, 5:-5, 5:-5]
    np.testing.assert_allclose(inside, 255, rtol=1e-5)
    assert (moved[:, [0, -1]] == 0).any()
    assert moved.min() == 0


def _fit(image: NDArray[Any], change: Any, largest: float) -> tuple[float, float]:
    """Return the parameter with which `change` comes nearest to the image, and how near."""

    def miss(parameter: float) -> float:
        return float(np.abs(change(parameter) - image[..., 0]).max())

    tried = np.linspace(-1.2 * largest, 1.2 * largest, 49)
    start = tried[np.argmin([miss(value) for value in tried])]
    step = tried[1] - tried[0]
    best = optimize.minimize_scalar(
        miss, bounds=(start - step, start + step), method="bounded", options={"xatol": 1e-7}
    )
    return float(best.x), float(best.fun)


def _about_centre(image: NDArray[Any], matrix: NDArray[Any]) -> NDArray[Any]:
    """Return an image as scipy maps it about its centre; matrix: from output to input, (y, x)."""
    middle = (np.array(image.shape) - 1) / 2
    offset = middle - matrix @ middle
    return np.asarray(
        ndimage.affine_transform(image, matrix, offset, order=1, mode="grid-constant")
    )


def _rotate(image: NDArray[Any], angle: float) -> NDArray[Any]:
    return np.asarray(ndimage.rotate(image, angle, reshape=False, order=1, mode="grid-constant"))


def _zoom(image: NDArray[Any], growth: float) -> NDArray[Any]:
    return _about_centre(image, np.eye(2) / (1 + growth))


def _shear(image: NDArray[Any], angle: float) -> NDArray[Any]:
    return _about_centre(image, np.array([[1, 0], [np.tan(np.radians(angle)), 1]]))


@pytest.mark.parametrize(
    ("name", "largest", "change"),
    [
        ("augment_rotation", 15.0, _rotate),
        ("augment_scale", 0.2, _zoom),
        ("augment_shear", 20.0, _shear),
    ],
)
def test_images_turn_grow_and_slant_about_their_centre(
    name: str, largest: float, change: Any
) -> None:
    """Each image equals scipy's change by some amount within the setting, in both directions."""
    images = _blobs(12)
    changed = _transform(images, _settings(**{name: largest}))
    fits = [_fit(image, partial(change, images[0, ..., 0]), largest) for image in changed]
    assert max(miss for _, miss in fits) < 0.05
    shares = [amount / largest for amount, _ in fits]
    assert -1.0005 <= min(shares) < -0.35
    assert 0.35 < max(shares) <= 1.0005


def _source_coordinates(moved: NDArray[Any]) -> NDArray[np.float64]:
    """Return the matrix (2, 3) from (x, y, 1) of a moved pixel to where it came from.

    moved: one image whose three channels were x, y and 1 before: interpolation keeps them linear.
    """
    y, x = np.nonzero(moved[..., 2] > 1 - 1e-6)  # all neighbours are inside
    assert len(x) > 300
    positions = np.stack([x, y, np.ones_like(x)], axis=1)
    matrix, *_ = np.linalg.lstsq(positions, np.float64(moved[y, x, :2]), rcond=None)
    np.testing.assert_allclose(positions @ matrix, moved[y, x, :2], atol=1e-3)
    return matrix.T


def test_all_changes_together_are_one_rotation_one_scaling_and_one_shift() -> None:
    """Angles, scales and shifts of 200 images, measured from coordinates, fill their ranges."""
    y, x = np.mgrid[:30, :40].astype(np.float32)
    coordinates = np.stack([x, y, np.ones_like(x)], axis=-1)
    images = np.repeat(coordinates[None], 200, axis=0)
    settings = _settings(augment_shift=3.0, augment_rotation=20.0, augment_scale=0.2)
    measured = []
    for moved in _transform(images, settings):
        matrix = _source_coordinates(moved)
        (a, b, _), (c, d, _) = matrix
        assert (a, b) == (pytest.approx(d, abs=1e-4), pytest.approx(-c, abs=1e-4))
        growth = 1 / np.hypot(a, c) - 1
        centre = np.array([19.5, 14.5])
        shift = np.linalg.solve(matrix[:, :2], centre - matrix[:, 2]) - centre
        measured.append((np.degrees(np.arctan2(c, a)), growth, *shift))
    largest = np.array([20, 0.2, 3, 3])
    shares = np.array(measured) / largest
    assert (np.abs(shares) < 1.001).all()
    assert (shares.min(axis=0) < -0.9).all()
    assert (shares.max(axis=0) > 0.9).all()
    between = np.corrcoef(shares.T)[np.triu_indices(4, 1)]
    assert np.abs(between).max() < 0.3, "each change is drawn independently"


def test_the_seed_alone_decides() -> None:
    """The same seed repeats every pixel; another run or another step changes them."""
    images = np.repeat(_blobs(4), 3, axis=-1)
    settings = _settings(augment_shift=2.0, augment_rotation=10.0, augment_scale=0.1)
    once = _transform(images, settings, (0, 1))
    np.testing.assert_array_equal(_transform(images, settings, (0, 1)), once)
    assert (_transform(images, settings, (0, 2)) != once).any()
    assert (_transform(images, settings, (1, 1)) != once).any()
    assert (once[0] != once[1]).any(), "each image has its own change"
    np.testing.assert_array_equal(once, np.repeat(once[..., :1], 3, axis=-1))  # all channels alike
