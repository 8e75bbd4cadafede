"""`python -m benchmarks` prints what an explanation costs beside a plain forward pass, and beside other packages."""

import sys

from benchmarks import bench, rivals

sys.exit(max(bench.main(), rivals.main()))
