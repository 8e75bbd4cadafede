"""`python -m benchmarks` prints what an explanation costs, alone and beside other packages."""

import sys

from benchmarks import bench, rivals

sys.exit(max(bench.main(), rivals.main()))
