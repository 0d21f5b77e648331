"""`python -m lightning_edit` is the command `lightning-edit`."""

import sys

from lightning_edit.cli import main

if __name__ == "__main__":
    sys.exit(main())
