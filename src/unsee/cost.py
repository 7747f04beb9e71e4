"""What a process has used so far."""

import resource
import sys

import torch


def peak_memory() -> dict[str, float | None]:
    """Largest memory of this process, in MB (10^6 bytes).

    Returns:
        `peak_rss_mb`, and `peak_gpu_mb`, which is None without a GPU.
    """
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in kilobytes, macOS in bytes.
    resident = largest if sys.platform == "darwin" else largest * 1024
    gpu = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None
    return {"peak_rss_mb": resident / 1e6, "peak_gpu_mb": gpu}
