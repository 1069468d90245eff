"""The host's CPUs, which the native engine and XLA share."""

import os


def num_cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spare_a_thread() -> None:
    """On one CPU, let XLA have two threads; without effect once JAX has begun to compute.

    A host callback waits for the copy of a large argument (100 KiB). With one thread, which waits for the callback,
    nobody makes that copy: a program with 2,000 simulations hung.
    """
    if num_cpus() == 1:
        os.environ.setdefault("PJRT_NPROC", "2")
