"""The script of the page: what it loads before it is told what to do."""

import subprocess
import sys

from hybridiqa.utils.root import ROOT

HEAVY = ("torch", "transformers", "gradio", "datasets")


def test_the_command_is_there_before_torch_and_gradio_are_loaded():
    """Hold what lets `main` set the environment of these libraries in time."""
    code = f"import sys, app; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
