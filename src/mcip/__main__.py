"""`python -m mcip` is the command `mcip`."""

import sys

from mcip.cli import main

sys.exit(main())
