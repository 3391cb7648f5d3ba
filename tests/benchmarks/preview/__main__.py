"""`python -m tests.benchmarks.preview` runs the benchmark."""

import sys

from tests.benchmarks.preview.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
