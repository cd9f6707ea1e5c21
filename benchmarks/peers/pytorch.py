"""PyTorch, eager or compiled, in the memory format that its documentation advises for CPUs."""

import torch
from torch import nn

from benchmarks import peers


def steps(batch: str, mode: str = "eager") -> peers.Steps:
    """Return what trains on images that lie in memory as float32, channels last."""
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
