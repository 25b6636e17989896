"""Labelling of a session's images: which one is asked about next, and what is said after a choice."""

from __future__ import annotations

from hybridiqa.webapp.labelling import SKIPPED, Label, LabelFolder, score_of_bin, sort_for_labelling
from hybridiqa.webapp.session_scores import SessionScores, describe_score
from hybridiqa.webapp.uploads import UploadedImage, Uploads

UNDO = "undo"
ADDENDA = {"8": ", cherry-picked", "9": ", a real picture"}


def describe_choice(choice: str) -> str:
    """Return a choice in words."""
    if choice in (SKIPPED, UNDO):
        return choice.capitalize()
    if choice in ADDENDA:
        return choice + ADDENDA[choice]
    return f"{choice.replace('/', ' ')} (score {score_of_bin(choice):g})"


class SessionLabels:
    """The images of a session that wait for a label.

    Args:
        folder: where labelled images are copied to.
        uploads: the images.
        scores: what the model says of them, which is told after a choice and never before.
        are_ours: the folder ends with the session.
    """

    def __init__(self, folder: LabelFolder, uploads: Uploads, scores: SessionScores, are_ours: bool):
        self.folder, self.uploads, self.scores, self.are_ours = folder, uploads, scores, are_ours
        self.on_screen: tuple[str, UploadedImage] | None = None  # to be labelled, in which order

    def list_waiting(self, order: str) -> list[UploadedImage]:
        """Return the images without a label, in their order; those that cannot be read are left out."""
        images = dict(self.uploads.by_content)
        seen = {digest: result.row for digest in images if (result := self.scores.find_result(digest)) is not None}
        readable = [digest for digest in images if digest not in seen or seen[digest].error is None]
        score_stds = {digest: row.score_std for digest, row in seen.items() if row.score_std is not None}
        labelled = {label.content_hash for label in self.folder.history}
        return [images[digest] for digest in sort_for_labelling(readable, order, score_stds) if digest not in labelled]

    def list_next(self, order: str) -> list[UploadedImage]:
        """Return the images that wait, where the first stays the first until it is labelled, whatever is scored."""
        waiting = self.list_waiting(order)
        on_screen = [image for image in waiting if (order, image) == self.on_screen]
        waiting = on_screen + [image for image in waiting if image not in on_screen]
        self.on_screen = (order, waiting[0]) if waiting else None
        return waiting

    def choose(self, order: str, choice: str, image_id: str) -> str:
        """Label the image of that id, or undo the last label; return what is to be said of it.

        Raises:
            ValueError: it cannot be done.
        """
        if choice == UNDO:
            return self.undo(order)
        if image_id not in self.uploads.by_id:
            raise ValueError("that picture is no longer here")
        image = self.uploads.by_id[image_id]
        return self._describe(self.folder.choose(image.path, image.name, choice), image.short_name)

    def undo(self, order: str) -> str:
        """Take back the last label, whose image, if it is here, is the next to be labelled; return what is to be said.

        Raises:
            ValueError: its copy was changed since.
        """
        label = self.folder.undo()
        if label is None:
            return "There is nothing to undo."
        image = self.uploads.by_content.get(label.content_hash)
        if image is not None:
            self.on_screen = (order, image)
        return f"Taken back: {image.short_name if image else label.file}, {describe_choice(label.choice)}."

    def _describe(self, label: Label, name: str) -> str:
        """Return what was just decided, and, as that is done, what the model says of the image."""
        if label.choice == SKIPPED:
            return f"{name}: skipped."
        done = f"{name}: {describe_choice(label.choice)}."
        result = self.scores.find_result(label.content_hash)
        if result is None or result.row.score is None:
            return f"{done} The model has not scored it yet."
        row, word = result.row, describe_score(result.row, self.scores.model.score_range)
        return f"{done} The model says {row.score:.2f} ({word}), spread {row.score_std:.2f}."
