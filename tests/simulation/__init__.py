"""Whole batches in a deterministic, seeded simulation: the real controller, scheduler, reducer, executor and host agent.

    python -m tests.simulation --count 10000        (make simulate N=10000)

What is simulated lies below the code that decides: the link, the disk, the kernel's locks and processes, clocks and chance.
"""
