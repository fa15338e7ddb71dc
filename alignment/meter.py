"""What training costs on this machine: the most memory held, and the speed that `mfu` is a share of."""

from __future__ import annotations

import math
import resource
import time

import torch

from alignment.hardware import Hardware


def matmul_peak(hardware: Hardware, device: torch.device) -> float:
    """Operations per second of a plain square product here and now: what `mfu` is a share of."""
    size = 4096 if device.type == "cuda" else 1024
    square = torch.ones(size, size, device=device, dtype=getattr(torch, hardware.dtype))
    products, began = 0, math.inf
    while products < 3 or time.perf_counter() - began < 0.2:
        if products == 2:  # the first ones pay for loading the kernel
            began = time.perf_counter()
        (square @ square)[0, 0].item()
        products += 1
    return 2 * size**3 * (products - 2) / (time.perf_counter() - began)


def memory_bytes(device: torch.device) -> int:
    """The most memory this process has held so far, on the device that trains."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
