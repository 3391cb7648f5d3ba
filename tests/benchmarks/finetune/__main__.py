"""`python -m tests.benchmarks.finetune` runs the benchmark."""

import sys

from tests.benchmarks.finetune.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
