"""`python -m tests.benchmarks.start` runs the benchmark."""

import sys

from tests.benchmarks.start.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
