"""`python -m tests.benchmarks.compression` runs the benchmark."""

import sys

from tests.benchmarks.compression.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
