"""Commands run one after the other as in a shell, all in one process, which loads the libraries once.

    python tests/typed_commands.py OUTPUTS.json < COMMANDS.json

COMMANDS.json is a list of lists of words. `python SCRIPT ...`, `python -c CODE` and the commands of installed packages
(`hf`, `accelerate`) run in the working folder; OUTPUTS.json gets what each printed, up to the first that fails.
"""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
from importlib.metadata import entry_points
from pathlib import Path


def run(words: list[str]) -> None:
    """Run one command, as the program of its name would."""
    if words[:2] == ["python", "-c"]:
        sys.argv = ["-c"]
        exec(compile(words[2], "<string>", "exec"), {"__name__": "__main__"})
    elif words[0] == "python":
        sys.argv = words[1:]
        runpy.run_path(words[1], run_name="__main__")
    else:
        sys.argv = words
        (command,) = entry_points(group="console_scripts", name=words[0])
        command.load()()


def main() -> int:
    results, outputs = Path(sys.argv[1]), []
    sys.path[0] = ""  # as where a shell starts Python: the working folder, not that of this file
    for words in json.load(sys.stdin):
        status: object = 0
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                run(words)
            except SystemExit as end:
                status = end.code
        outputs.append(printed.getvalue())
        results.write_text(json.dumps(outputs), encoding="utf-8")
        if status:
            print(f"{words} ended with {status}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
