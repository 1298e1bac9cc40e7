"""``python -m rnnzoo``."""

import sys

from rnnzoo.cli.main import main

sys.exit(main())
