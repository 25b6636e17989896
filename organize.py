"""Sort, tag and mark images by their scores. `python organize.py --help` tells how."""

import sys

from hybridiqa.commands.organize import main

if __name__ == "__main__":
    sys.exit(main())
