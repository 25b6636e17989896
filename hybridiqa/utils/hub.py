"""Pushes to the Hub: all of a folder in one commit, or nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.utils import RepositoryNotFoundError, get_token, validate_repo_id

from hybridiqa.utils.cli import CommandFailure

HUB_ID = re.compile(r"\b[\w.-]+\b/\b[\w.-]+\b")  # user/name
WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
# What `AutoModel`, `AutoImageProcessor` and `pipeline` load, and what was measured; a run's folder holds more.
MODEL_FILES = (
    *("config.json", "preprocessor_config.json", "*_hybridiqa.py", *WEIGHTS),
    *("README.md", "THIRD_PARTY_NOTICES.md", "metrics.json"),
)
MADE_WITH_A_REPOSITORY = {".gitattributes", "README.md"}  # by the Hub itself


class PushError(CommandFailure):
    """Push that did not arrive; the message says what the Hub holds now."""


@dataclass(frozen=True)
class HubRepository:
    """Repository on the Hub to push to.

    Args:
        repo_id: user/name.
        kind: "model" or "dataset".
        is_private: a new repository becomes private.
    """

    repo_id: str
    kind: str = "model"
    is_private: bool = False

    @property
    def url(self) -> str:
        """Return the address where people look at it."""
        prefix = "" if self.kind == "model" else f"{self.kind}s/"
        return f"{HfApi().endpoint}/{prefix}{self.repo_id}"

    def check(self) -> None:
        """Find out before long work what a push would stumble over.

        Raises:
            ValueError: a name that the Hub does not take, no token or one that may not write, no connection, or a
                public repository of this name where a private one was asked for.
        """
        try:
            validate_repo_id(self.repo_id)
            _, _ = self.repo_id.split("/")
        except ValueError as error:
            raise ValueError(f"a Hub repository must be named user/name, got {self.repo_id!r}") from error
        if get_token() is None:
            raise ValueError(f"to push to {self.repo_id}, log in to the Hub: `hf auth login`, or set HF_TOKEN")
        try:
            access = HfApi().whoami().get("auth", {}).get("accessToken", {})
            is_public = self._is_public()
        except Exception as error:  # each version of the Hub's client has classes of its own
            raise ValueError(f"cannot push to {self.repo_id}: {explain_hub_error(error)}") from error
        if access.get("role") == "read":
            raise ValueError(f"cannot push to {self.repo_id}: the token may only read; one that may write is needed")
        if self.is_private and is_public:
            raise ValueError(f"{self.url} is there already and public: private can only be a new repository")

    def _is_public(self) -> bool:
        try:
            return not HfApi().repo_info(self.repo_id, repo_type=self.kind).private
        except RepositoryNotFoundError:
            return False


def explain_hub_error(error: BaseException) -> str:
    """Return what went wrong in one line, in the server's words where it had some."""
    words = " ".join((getattr(error, "server_message", None) or str(error) or type(error).__name__).split())
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status:
        return f"{words} (HTTP {status})"
    cause = explain_hub_error(error.__cause__) if error.__cause__ else words
    return words if cause in words else f"{words} {cause}"


def _find_head(repository: HubRepository) -> str | None:
    """Return the newest commit; None where there is no such repository."""
    try:
        return HfApi().repo_info(repository.repo_id, repo_type=repository.kind).sha
    except RepositoryNotFoundError:
        return None


def _clean_up(repository: HubRepository, before: str | None) -> str:
    """Return what a push that failed has left on the Hub; a repository that was made for it is removed again."""
    api, repo_id, kind = HfApi(), repository.repo_id, repository.kind
    try:
        head = _find_head(repository)
        if head == before:
            return "nothing there was changed"
        if before is None and set(api.list_repo_files(repo_id, repo_type=kind)) <= MADE_WITH_A_REPOSITORY:
            api.delete_repo(repo_id, repo_type=kind)
            return "the repository that was made for it is removed again"
        return f"yet there is a new commit, {head}: it may have arrived all the same"
    except Exception as error:
        return f"what {repository.url} holds now could not be found out: {explain_hub_error(error)}"


@contextmanager
def pushing_to(repository: HubRepository) -> Iterator[str | None]:
    """Turn an error in a block that pushes into what the user needs to know; the block gets the newest commit, if any.

    Raises:
        PushError: something in the block went wrong.
    """
    try:
        before = _find_head(repository)
    except Exception as error:  # each version of the Hub's client has classes of its own
        raise PushError(f"the push to {repository.repo_id} did not begin: {explain_hub_error(error)}") from error
    try:
        yield before
    except Exception as error:
        left = _clean_up(repository, before)
        raise PushError(f"the push to {repository.repo_id} failed: {explain_hub_error(error)}; {left}") from error


def push_folder(
    folder: Path,
    repository: HubRepository,
    files: tuple[str, ...],
    replaced: tuple[str, ...] = (),
    message: str = "Upload by hybridIQA",
) -> str:
    """Push files of a folder in one commit, so that nobody ever sees half of it.

    Args:
        files: patterns of paths relative to the folder.
        replaced: patterns of what is removed from the repository where the folder has no such file.

    Returns:
        The repository's address.

    Raises:
        PushError: it did not arrive.
    """
    found = sorted({path for pattern in files for path in folder.glob(pattern) if path.is_file()})
    pushed = {path.relative_to(folder).as_posix(): path for path in found}
    repo_id, kind = repository.repo_id, repository.kind
    with pushing_to(repository) as parent:
        api = HfApi()
        if parent is None:
            api.create_repo(repo_id, repo_type=kind, private=repository.is_private or None)
            parent = _find_head(repository)
        there = api.list_repo_files(repo_id, repo_type=kind, revision=parent)
        stale = [name for name in there if name not in pushed and any(fnmatch(name, pattern) for pattern in replaced)]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(name, path) for name, path in pushed.items()),
            *(CommitOperationDelete(name) for name in stale),
        ]
        api.create_commit(repo_id, operations, commit_message=message, repo_type=kind, parent_commit=parent)
    return repository.url
