"""``python -m benchmarks`` runs every benchmark, and exits with 1 when one of them misses its limit."""

import sys

from benchmarks import bench, busy, drawing, finetune, hub, parallel, redraw, rivals

sys.exit(max([benchmark.main() for benchmark in (bench, hub, rivals, redraw, finetune, parallel, busy, drawing)]))
