"""Augmentation moves pixels as scipy.ndimage does, by amounts within the settings."""

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


def test_without_augmentation_images_stay_as_they_are(rng: np.random.Generator) -> None:
    """All settings at 0: not a pixel changes."""
    images = rng.uniform(0, 255, (4, 28, 28, 3)).astype(np.float32)
    np.testing.assert_array_equal(_transform(images, _settings()), images)


def test_a_shift_moves_every_pixel_alike() -> None:
    """Each image equals scipy's shift by what its centre of mass moved, in x and in y."""
    images = _blobs(50)
    moved = _transform(images, _settings(augment_shift=3.0))
    shifts = np.array([_centre(image) for image in moved]) - _centre(images[0])
    for image, shift in zip(moved, shifts, strict=True):
        expected = ndimage.shift(images[0, ..., 0], shift, order=1, mode="grid-constant")
        np.testing.assert_allclose(image[..., 0], expected, atol=0.05)
    assert np.abs(shifts).max() <= 3
    assert (shifts.min(axis=0) < -2).all(), "no image went far up or left"
    assert (shifts.max(axis=0) > 2).all(), "no image went far down or right"
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.5, "x and y must be drawn apart"


def test_what_a_shift_brings_in_from_outside_is_black() -> None:
    """A white image that is shifted has black edges, and nothing else than black and white."""
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
    found = optimize.minimize_scalar(
        miss, bounds=(start - step, start + step), method="bounded", options={"xatol": 1e-7}
    )
    return float(found.x), float(found.fun)


def test_a_rotation_turns_about_the_centre() -> None:
    """Each image equals scipy's rotation by some angle within the setting, both ways."""
    images = _blobs(12)
    turned = _transform(images, _settings(augment_rotation=15.0))
    original = images[0, ..., 0]

    def rotate(angle: float) -> NDArray[Any]:
        return np.asarray(
            ndimage.rotate(original, angle, reshape=False, order=1, mode="grid-constant")
        )

    found = [_fit(image, rotate, 15) for image in turned]
    assert max(miss for _, miss in found) < 0.05
    angles = [angle for angle, _ in found]
    assert -15.001 <= min(angles) < -5
    assert 5 < max(angles) <= 15.001


def _about_centre(image: NDArray[Any], matrix: NDArray[Any]) -> NDArray[Any]:
    """Return an image as scipy maps it about its centre; matrix: from output to input, (y, x)."""
    middle = (np.array(image.shape) - 1) / 2
    offset = middle - matrix @ middle
    return np.asarray(
        ndimage.affine_transform(image, matrix, offset, order=1, mode="grid-constant")
    )


def test_a_change_of_size_keeps_the_centre() -> None:
    """Each image equals scipy's zoom about the centre, by a share within the setting."""
    images = _blobs(12)
    grown = _transform(images, _settings(augment_scale=0.2))

    def zoom(growth: float) -> NDArray[Any]:
        return _about_centre(images[0, ..., 0], np.eye(2) / (1 + growth))

    found = [_fit(image, zoom, 0.2) for image in grown]
    assert max(miss for _, miss in found) < 0.05
    shares = [growth for growth, _ in found]
    assert -0.2001 <= min(shares) < -0.07
    assert 0.07 < max(shares) <= 0.2001


def test_a_shear_slants_and_keeps_rows() -> None:
    """Each image equals scipy's shear about the centre, by an angle within the setting."""
    images = _blobs(12)
    slanted = _transform(images, _settings(augment_shear=20.0))

    def shear(angle: float) -> NDArray[Any]:
        return _about_centre(images[0, ..., 0], np.array([[1, 0], [np.tan(np.radians(angle)), 1]]))

    found = [_fit(image, shear, 20) for image in slanted]
    assert max(miss for _, miss in found) < 0.05
    angles = [angle for angle, _ in found]
    assert -20.001 <= min(angles) < -7
    assert 7 < max(angles) <= 20.001


def _source_coordinates(moved: NDArray[Any]) -> NDArray[np.float64]:
    """Return the matrix (2, 3) from (x, y, 1) of a moved pixel to where it came from.

    moved: one image of three channels that were x, y and 1 before: what interpolation
    leaves linear.
    """
    y, x = np.nonzero(moved[..., 2] > 1 - 1e-6)  # those that have all neighbours inside
    assert len(x) > 300
    places = np.stack([x, y, np.ones_like(x)], axis=1)
    matrix, *_ = np.linalg.lstsq(places, np.float64(moved[y, x, :2]), rcond=None)
    np.testing.assert_allclose(places @ matrix, moved[y, x, :2], atol=1e-3)
    return matrix.T


def test_all_changes_together_are_one_turn_one_growth_and_one_shift() -> None:
    """Angles, shares and shifts of 200 images, read off their coordinates, fill their ranges."""
    y, x = np.mgrid[:30, :40].astype(np.float32)
    coordinates = np.stack([x, y, np.ones_like(x)], axis=-1)
    images = np.repeat(coordinates[None], 200, axis=0)
    settings = _settings(augment_shift=3.0, augment_rotation=20.0, augment_scale=0.2)
    found = []
    for moved in _transform(images, settings):
        matrix = _source_coordinates(moved)
        (a, b, _), (c, d, _) = matrix
        assert (a, b) == (pytest.approx(d, abs=1e-4), pytest.approx(-c, abs=1e-4))
        growth = 1 / np.hypot(a, c) - 1
        centre = np.array([19.5, 14.5])
        shift = np.linalg.solve(matrix[:, :2], centre - matrix[:, 2]) - centre
        found.append((np.degrees(np.arctan2(c, a)), growth, *shift))
    largest = np.array([20, 0.2, 3, 3])
    shares = np.array(found) / largest
    assert (np.abs(shares) < 1.001).all()
    assert (shares.min(axis=0) < -0.9).all()
    assert (shares.max(axis=0) > 0.9).all()
    between = np.corrcoef(shares.T)[np.triu_indices(4, 1)]
    assert np.abs(between).max() < 0.3, "each change is drawn on its own"


def test_the_seed_alone_decides() -> None:
    """The same seed repeats every pixel; another run's seed or another step changes them."""
    images = _blobs(4)
    settings = _settings(augment_shift=2.0, augment_rotation=10.0, augment_scale=0.1)
    once = _transform(images, settings, (0, 1))
    np.testing.assert_array_equal(_transform(images, settings, (0, 1)), once)
    assert (_transform(images, settings, (0, 2)) != once).any()
    assert (_transform(images, settings, (1, 1)) != once).any()
    assert (once[0] != once[1]).any(), "each image has its own change"


def test_all_channels_move_together() -> None:
    """A gray image in three channels stays gray."""
    images = np.repeat(_blobs(3), 3, axis=-1)
    settings = _settings(augment_shift=2.0, augment_rotation=10.0, augment_scale=0.1)
    moved = _transform(images, settings)
    np.testing.assert_array_equal(moved, np.repeat(moved[..., :1], 3, axis=-1))
    assert (moved != images).any()
