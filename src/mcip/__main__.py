"""`python -m mcip` is the command `mcip`."""

import sys

from mcip.cli.main import main

sys.exit(main())
