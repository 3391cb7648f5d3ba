"""`python -m tests.benchmarks.mix_gate` runs the benchmark, with the allocator that steps have."""

import os
import sys

from assembler.jobs.step_process import ALLOCATOR
from tests.benchmarks.mix_gate.benchmark import main

if __name__ == "__main__":
    if not ALLOCATOR.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | ALLOCATOR)
    sys.exit(main())
