"""Serve the page in a browser. `python app.py --help` tells how."""

import sys

from hybridiqa.commands.app import main

if __name__ == "__main__":
    sys.exit(main())
