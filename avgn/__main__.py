"""`python -m avgn`."""

import sys

from avgn.cli import main

sys.exit(main())
