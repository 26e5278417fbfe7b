"""`python -m loadtest.verify`."""

import sys

from loadtest.verify.command import main

sys.exit(main(sys.argv[1:]))
