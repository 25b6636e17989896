"""Sections, code blocks, commands and links of README and docs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from hybridiqa.utils.root import ROOT

MANUAL = ("README.md", *(f"docs/{path.name}" for path in sorted(ROOT.glob("docs/*.md"))))
OTHERS = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "examples/README.md", "metrics/iqa/README.md")
DOCUMENTS = {
    name: (ROOT / name).read_text(encoding="utf-8") for name in (*MANUAL, *OTHERS, "results/default_checkpoint.md")
}
README = DOCUMENTS["README.md"]


def blocks(language: str, section: str = "", document: str = "") -> list[str]:
    """Return the code blocks of a language: of one document or all of the manual, of one section of it or all.

    Raises:
        ValueError: no section of this title, or several.
    """
    text = "\n".join(DOCUMENTS[name] for name in ([document] if document else MANUAL))
    if section:
        (text,) = [part.split("\n## ")[0] for part in text.split(f"\n## {section}\n")[1:]]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands_of(block: str) -> list[list[str]]:
    """Return the words of each command of a shell block, without comments; `&&` parts commands as a new line does."""
    commands = []
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while "&&" in words:
            commands.append(words[: words.index("&&")])
            words = words[words.index("&&") + 1 :]
        if words:
            commands.append(words)
    return commands


def anchors_of(document: str) -> set[str]:
    """Return what `#...` of a link may name in a document: its titles in small letters, hyphens for spaces."""
    text = re.sub(r"^```.*?^```$", "", DOCUMENTS[document], flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links_of(document: str) -> Iterator[str]:
    """Yield the targets of a document's links and images that lead to files or titles of the project."""
    text = re.sub(r"^```.*?^```$", "", DOCUMENTS[document], flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^()\s]+)\)", text):
        if not re.match(r"\w+:", target):
            yield target
