"""Repositories of a Hub on loopback, their commits and files, and its checks of a card's metadata."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field

import yaml

PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}
NAME = re.compile(r"(?![-.])(?!.*(--|\.\.))[\w.-]{1,96}(?<![-.])(?<!\.git)")
LFS_SUFFIXES = (".safetensors", ".parquet", ".bin", ".pt", ".pth", ".png", ".jpg", ".webp", ".arrow", ".zip", ".npz")
MAX_REGULAR_BYTES = 10 * 2**20
GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)
LICENCES = ("apache-2.0", "mit", "cc-by-4.0", "cc0-1.0", "openrail", "other", "unknown")
SDKS = ("gradio", "static", "docker")


class Refused(Exception):
    """Answer that is an error: HTTP status, the Hub's code for it, and its words."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}


@dataclass
class File:
    """File as a commit holds it; the bytes are elsewhere, by SHA-256."""

    sha256: str
    git_oid: str
    size: int
    is_lfs: bool

    def entry(self, path: str) -> dict:
        """Return the file as the Hub lists it."""
        entry = {"type": "file", "path": path, "oid": self.git_oid, "size": self.size}
        return entry | ({"lfs": {"oid": self.sha256, "size": self.size, "pointerSize": 134}} if self.is_lfs else {})


@dataclass
class Repository:
    """Commits, the newest last, and the names that point to them."""

    kind: str
    name: str
    is_private: bool
    commits: list[tuple[str, str, dict[str, File]]] = field(default_factory=list)  # (oid, title, files by path)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, title: str, files: dict[str, File], branch: str = "main") -> str:
        content = json.dumps([title, len(self.commits), sorted((path, file.sha256) for path, file in files.items())])
        oid = hashlib.sha1(f"{self.kind}/{self.name}{content}".encode()).hexdigest()
        self.commits.append((oid, title, files))
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> tuple[str, dict[str, File]]:
        """Return (commit, files by path) of a branch, a tag or a commit."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        for commit, _, files in self.commits:
            if commit == oid:
                return commit, files
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def git_oid(data: bytes) -> str:
    """Return the name that git gives to a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def card_errors(content: str, kind: str) -> list[str]:
    """Return what is wrong with the metadata on top of a README.md."""
    block = FRONT_MATTER.match(content)
    if block is None:
        return ["Missing configuration in README"] if kind == "space" else []
    try:
        data = yaml.safe_load(block[1])
    except yaml.YAMLError as error:
        return [f"the YAML cannot be parsed: {error}"]
    if not isinstance(data, dict):
        return ["the YAML is not a mapping"]
    errors = []
    licences = data.get("license", [])
    for licence in licences if isinstance(licences, list) else [licences]:
        if licence not in LICENCES:
            errors.append(f'"license" must be one of {", ".join(LICENCES)}, got {licence!r}')
    for name in ("tags", "datasets", "metrics"):
        if name in data and not (isinstance(data[name], list) and all(isinstance(item, str) for item in data[name])):
            errors.append(f'"{name}" must be a list of strings')
    for entry in data.get("model-index", []) if kind == "model" else []:
        for result in entry.get("results", [{}]):
            for part, needed in (("task", ("type",)), ("dataset", ("type", "name"))):
                errors += [
                    f'"model-index": {part}.{key} is required' for key in needed if key not in result.get(part, {})
                ]
            for metric in result.get("metrics", []):
                if "type" not in metric or not isinstance(metric.get("value"), int | float | str):
                    errors.append('"model-index": a metric needs a type and a value')
    if kind == "space" and data.get("sdk") not in SDKS:
        errors.append(f'"sdk" must be one of {", ".join(SDKS)}')
    if kind == "dataset":
        for config in data.get("configs", []):
            if "config_name" not in config or "data_files" not in config:
                errors.append('"configs": config_name and data_files are required')
    return errors
