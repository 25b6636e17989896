"""Code blocks of the README."""

from __future__ import annotations

import re

from hybridiqa.utils.root import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, section: str = "") -> list[str]:
    """The README's code blocks of a language, of all sections or of the one with this title."""
    text = README.split(f"\n## {section}\n")[1].split("\n## ")[0] if section else README
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
