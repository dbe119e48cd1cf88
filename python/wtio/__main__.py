"""``python -m wtio``, as ``wtio``: see ``wtio.cli``."""

import sys

from wtio.cli import main

sys.exit(main())
