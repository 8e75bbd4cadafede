"""``python -m benchmarks`` runs the one benchmark there is."""

import sys

from benchmarks.bench import main

sys.exit(main())
