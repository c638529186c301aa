"""Entry of `python -m bottleneck_core`."""

import sys

from bottleneck_core.cli import main

sys.exit(main())
