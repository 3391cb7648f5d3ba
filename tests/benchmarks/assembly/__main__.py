"""`python -m tests.benchmarks.assembly` runs the benchmark."""

import sys

from tests.benchmarks.assembly.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
