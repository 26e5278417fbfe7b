"""`python -m streams`: one stream worker, configured by the environment."""

import os

from streams.app import main

if __name__ == "__main__":
    main(os.environ)
