"""Write a checkpoint as an .onnx file. `python export.py --help` tells how."""

import sys

from hybridiqa.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
