"""PyTorch, eager or compiled, in the memory format that its documentation advises for CPUs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import peers
from benchmarks.peers.tiled import BATCH, Found, K, as_found, images


def steps(batch: str, mode: str = "eager") -> peers.Steps:
    """Return a function that trains on images held in memory as float32, channels last."""
    batch_size = int(batch)
    network = nn.Sequential(
        nn.Conv2d(1, 25, 12, stride=2),
        nn.ReLU(),
        nn.Conv2d(25, 64, 5, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 1024),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(1024, 10),
    ).to(memory_format=torch.channels_last)
    pixels = torch.from_numpy(peers.images()).permute(0, 3, 1, 2).float() / 255
    pixels, known = pixels.to(memory_format=torch.channels_last), torch.from_numpy(peers.labels())
    forward = torch.compile(network) if mode == "compiled" else network
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    loss_of = nn.CrossEntropyLoss()
    order = iter(())

    def take(n: int) -> None:
        nonlocal order
        for _ in range(n):
            chosen = next(order, None)
            if chosen is None:
                order = iter(torch.randperm(len(pixels))[:-batch_size].split(batch_size))
                chosen = next(order)
            optimizer.zero_grad(set_to_none=True)
            loss_of(forward(pixels[chosen]), known[chosen]).backward()
            optimizer.step()

    take(peers.N_WARM)
    return take


def top_k(folder: str) -> Callable[[int], Found]:
    """Return a function that takes torch.topk of each batch, then of that and the best so far.

    It works on a transposed copy: sorting the map of each image, or along the other axis, took
    longer.
    """
    weights = np.load(Path(folder) / "conv1.npz")
    kernel = torch.from_numpy(weights["kernel"] / 255).permute(3, 2, 0, 1)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    bias, pixels = torch.from_numpy(weights["bias"]), torch.from_numpy(images(folder))

    @torch.inference_mode()
    def sort(n: int) -> Found:
        strengths = torch.zeros(len(bias), K)
        places = torch.zeros(len(bias), K, dtype=torch.int64)
        for first in range(0, n * BATCH, BATCH):
            batch = pixels[first : first + BATCH].permute(0, 3, 1, 2).float()
            values = functional.conv2d(batch, kernel, bias, stride=2).relu_()
            n_places = values[0, 0].numel()
            found, at = values.transpose(0, 1).reshape(len(bias), -1).topk(K)
            places = torch.cat([places, at + first * n_places], dim=1)
            strengths, order = torch.cat([strengths, found], dim=1).topk(K)
            places = places.gather(1, order)
        return as_found(strengths.numpy(), places.numpy())

    sort(1)
    return sort
