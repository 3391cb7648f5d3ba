"""`python -m tests.benchmarks.gateway` runs the benchmark."""

import sys

from tests.benchmarks.gateway.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
