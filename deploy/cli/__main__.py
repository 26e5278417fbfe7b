"""`python -m deploy.cli`: the same as `headrace`, where the console script is not installed."""

import sys

from deploy.cli.main import main

sys.exit(main())
