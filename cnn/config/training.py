"""The settings of a training: architecture, optimisation, regularisation and logging."""

from typing import Annotated, Literal

from pydantic import Field

from cnn.config.base import OmitFromKeyAt, Settings
from cnn.config.values import Bool, Float, Int


class Training(Settings):
    """A complete set of training settings."""

    steps: Int = Field(ge=1, le=10_000_000, description="number of optimizer steps")
    batch_size: Int = Field(ge=1, le=65_536, description="images per step")
    optimizer: Annotated[Literal["adam", "sgd", "rmsprop"], OmitFromKeyAt("adam")] = Field(
        "adam",
        description="adam (AdamW, with weight_decay), sgd with Nesterov momentum, or rmsprop",
    )
    learning_rate: Float = Field(
        gt=0, le=1e9, description="peak learning rate; the recipes' rates suit adam"
    )
    schedule: Literal["constant", "linear", "cosine", "one-cycle"] = Field(
        description="how the learning rate decays after the warm-up: linear and cosine end at 0; "
        "one-cycle rises along a cosine from 1/25 of the peak, then decays along a cosine"
    )
    warmup_fraction: Float = Field(
        ge=0,
        lt=1,
        description="fraction of the steps over which the learning rate rises: linearly from 0, or "
        "as one-cycle does",
    )
    beta1: Float = Field(0.9, ge=0, lt=1, description="adam's decay of the first moment")
    beta2: Float = Field(ge=0, lt=1, description="decay of the second moment, of adam and rmsprop")
    epsilon: Float = Field(1e-8, gt=0, le=1, description="epsilon of adam and rmsprop")
    momentum: Annotated[Float, OmitFromKeyAt(0.9)] = Field(
        0.9, ge=0, lt=1, description="momentum of sgd and rmsprop"
    )
    weight_decay: Annotated[Float, OmitFromKeyAt(0.0)] = Field(
        0.0,
        ge=0,
        le=1,
        description="fraction by which each step shrinks the kernels, times the learning rate",
    )
    label_smoothing: Annotated[Float, OmitFromKeyAt(0.0)] = Field(
        0.0, ge=0, lt=1, description="fraction of each label that is spread evenly over all classes"
    )
    ema_decay: Annotated[Float, OmitFromKeyAt(0.0)] = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay per step of the moving average of the weights, which becomes the model; "
        "0 keeps the weights themselves",
    )
    precision: Annotated[Literal["auto", "float32", "bfloat16"], OmitFromKeyAt("float32")] = Field(
        "float32",
        description="number format in which layers compute during training; the saved model is "
        "float32. auto uses bfloat16 if the processor has instructions for it",
    )
    dropout: Float = Field(0.5, ge=0, lt=1, description="fraction of dense1's units dropped")
    augment_shift: Float = Field(
        0.0, ge=0, le=64, description="largest random shift of a training image, in pixels"
    )
    augment_rotation: Float = Field(
        0.0, ge=0, le=180, description="largest random rotation of a training image, in degrees"
    )
    augment_scale: Float = Field(
        0.0, ge=0, lt=1, description="largest random scaling of a training image, as a fraction"
    )
    augment_shear: Annotated[Float, OmitFromKeyAt(0.0)] = Field(
        0.0, ge=0, le=60, description="largest random shear of a training image, in degrees"
    )
    conv1_filters: Int = Field(25, ge=1, le=4096, description="filters of conv1")
    conv1_kernel: Int = Field(12, ge=1, le=256, description="side of conv1's kernels, in pixels")
    conv1_stride: Int = Field(2, ge=1, le=256, description="stride of conv1, in pixels")
    conv2_filters: Int = Field(64, ge=1, le=4096, description="filters of conv2")
    conv2_kernel: Int = Field(
        5, ge=1, le=256, description="side of conv2's kernels, in units of its input map"
    )
    dense1_units: Int = Field(1024, ge=1, le=65_536, description="units of dense1")
    conv_bias: Bool = Field(description="whether the convolutions have a bias")
    logits_activation: Literal["none", "relu"] = Field(
        description="activation on the logits; relu is the notebook's mistake"
    )
    weight_sd: Float = Field(
        0.05,
        gt=0,
        le=10,
        description="standard deviation of the initial weights, truncated at two of them",
    )
    initial_bias: Float = Field(0.1, ge=-10, le=10, description="initial value of all biases")
    log_every: Int = Field(
        100, ge=1, le=1_000_000, description="steps between two log points of the history"
    )
    log_split: Literal["validation", "test"] = Field(
        description="images on which accuracy is logged during training"
    )
