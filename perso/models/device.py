"""The device that a training runs on."""

from typing import Literal

import torch


def find_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """CUDA where there is a device and the name allows it, else the CPU.

    Raises:
        ValueError: If CUDA is asked for and absent.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ValueError("device is 'cuda', but PyTorch sees no CUDA device; give 'auto' or 'cpu'")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")
