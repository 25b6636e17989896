"""Sort, tag, embed and undo on a library of awkward files, on read-only and full disks, and with kills (SIGKILL).

    python tests/trials/organize_trial.py --num_images 1000 --num_kills 10 --seed 0

Before and after every undo the hashes of all files, the links and the folders are compared. Small disks are mounted for
it, which only root may do (on Linux: `sudo python tests/trials/organize_trial.py`); without that, these parts are
skipped.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from factories import make_picture

from hybridiqa.organize.journal import read_journal
from hybridiqa.scores.score_file import ScoreRow, write_scores
from hybridiqa.utils.atomic import TEMPORARY_PREFIX
from hybridiqa.utils.files import as_text

ORGANIZE = str(Path(__file__).resolve().parents[2] / "organize.py")
BINS = ["--edges", "3", "5", "7"]
TAGS = ["--tags", "worst quality", "low quality", "good quality", "best quality"]
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}
ODD_NAMES = [b"-rf", b"two\nlines", "😀 ü".encode(), b"caf\xe9", b"a.b.c", b"\\x41", b"UPPER", b"upper"]
CHANGING = ("copy", "move", "symlink", "hardlink", "tag", "embed")


class Failure(RuntimeError):
    """The trial found that organize.py does not do what it promises."""


def manifest(folder: Path) -> dict[str, str]:
    """What stands in a folder, by path: the hash of a file, where a link leads, or that it is a folder."""
    found = {}
    for parent, folder_names, file_names in os.walk(folder):
        for name in folder_names + file_names:
            path = Path(parent, name)
            key = str(path.relative_to(folder))
            if path.is_symlink():
                found[key] = f"-> {os.readlink(path)}"
            elif path.is_file():
                found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[key] = "folder" if path.is_dir() else "special"
    return found


def picture_files() -> dict[str, list[bytes]]:
    """Twenty pictures in each format."""
    files = {}
    for suffix, kind in FORMATS.items():
        files[suffix] = []
        for seed in range(20):
            buffer = io.BytesIO()
            make_picture(48 + 48 * (seed % 2), 32, seed).save(buffer, kind)
            files[suffix].append(buffer.getvalue())
    return files


def make_library(folder: Path, num_images: int, rng: random.Random) -> None:
    """Images under two roots that share their relative paths, some of them their stem, most of them with sidecars."""
    pictures, rows = picture_files(), []
    for number in range(num_images):
        pair = number // 2  # the same relative path in both roots
        odd = ODD_NAMES[pair] if pair < len(ODD_NAMES) else f"{pair:05}".encode()
        album = folder / "library" / ("one", "two")[number % 2] / f"album {pair % 7}"
        album.mkdir(parents=True, exist_ok=True)
        suffixes = (".png", ".jpg") if pair % 25 == 24 else (rng.choice(list(FORMATS)),)
        score = rng.uniform(1, 9)  # one for both suffixes, which may share a caption
        for suffix in suffixes:
            path = album / (os.fsdecode(odd) + suffix)
            path.write_bytes(rng.choice(pictures[suffix]) + b"number %d" % number)
            rows.append(ScoreRow(as_text(path), score, scorer="trial"))
        for sidecar in rng.sample([".txt", ".TXT", ".json", ".caption"], k=rng.randrange(3)):
            path.with_suffix(sidecar).write_text(f"1girl, {rng.choice(TAGS[1:])}, number {number}\n")
    rows += [
        ScoreRow("broken.png", error="not an image", scorer="trial"),
        ScoreRow("gone.png", 5.0, vanished=True, scorer="trial"),
    ]
    write_scores(folder / "scores.csv", rows)


def start(*arguments: str | Path) -> subprocess.Popen:
    command = [sys.executable, ORGANIZE, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run(*arguments: str | Path, expected: tuple[int, ...] = (0,)) -> str:
    """Run organize.py to its end; what it printed. Raises Failure for another exit status than expected."""
    process = start(*arguments)
    printed = process.communicate()[0].decode(errors="replace")
    if process.returncode not in expected:
        raise Failure(f"exit status {process.returncode}, expected {expected}: {arguments}\n{printed[-3000:]}")
    return printed


def check_equal(found: dict[str, str], expected: dict[str, str], what: str) -> None:
    differing = [name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)]
    if differing:
        examples = [(name, expected.get(name), found.get(name)) for name in sorted(differing)[:5]]
        raise Failure(f"{what}: {len(differing)} differ, such as {examples}")


def has_grown(path: Path, size: float) -> bool:
    return path.exists() and path.stat().st_size >= size


class Trial:
    """One library, the commands that act on it, and what must hold after each of them.

    Args:
        max_delay: seconds after a moment within which a process is killed.
    """

    def __init__(self, folder: Path, num_images: int, rng: random.Random, max_delay: float):
        self.folder, self.rng, self.max_delay, self.num_journals = folder, rng, max_delay, 0
        make_library(folder, num_images, rng)
        self.into = folder / "sorted"
        (folder / "journals").mkdir()
        self.before = self.manifest()
        self.num_files = sum(value != "folder" for value in self.before.values())

    def manifest(self) -> dict[str, str]:
        trees = {name: manifest(self.folder / name) for name in ("library", "sorted")}
        return {f"{tree}/{name}": value for tree, found in trees.items() for name, value in found.items()}

    def command(self, name: str, journal: Path) -> list[str | Path]:
        scores = self.folder / "scores.csv"
        if name == "tag":
            return ["tag", scores, *BINS, *TAGS, "--journal", journal]
        if name == "embed":
            return ["embed", scores, "--journal", journal]
        roots = [part for root in ("one", "two") for part in ("--root", self.folder / "library" / root)]
        return ["sort", scores, *BINS, "--into", self.into, *roots, "--mode", name, "--journal", journal]

    def new_journal(self) -> Path:
        self.num_journals += 1
        return self.folder / "journals" / f"{self.num_journals}"

    def check_restored(self, what: str) -> None:
        check_equal(self.manifest(), self.before, what)

    def round_trip(self, name: str) -> None:
        """Do, do again, undo, undo again."""
        journal, began = self.new_journal(), time.monotonic()
        printed = run(*self.command(name, journal))
        seconds, after = time.monotonic() - began, self.manifest()
        collisions = [line for line in printed.splitlines() if "got another name" in line]
        num_changed = len(after.items() ^ self.before.items())
        if name != "move":  # after which the rows name files that are no longer there
            run(*self.command(name, journal.with_suffix(".second")))
            check_equal(self.manifest(), after, f"a second {name}")
            if journal.with_suffix(".second").exists():
                raise Failure(f"a second {name} wrote a journal")
        run("undo", journal)
        self.check_restored(f"undo of {name}")
        if "nothing to undo" not in run("undo", journal):
            raise Failure(f"a second undo of {name} found something to do")
        self.check_restored(f"a second undo of {name}")
        about = f"{seconds:.1f} s, {num_changed} entries changed" + "".join(f", {line[:-1]}" for line in collisions)
        print(f"{name:9} {about}; undone: all {self.num_files} files as before", flush=True)

    def kill(self, *arguments: str | Path, moment: Callable[[], bool]) -> bool:
        """Run, and kill soon after the moment; False if it had come to its end before."""
        process = start(*arguments)
        while not moment() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(self.rng.uniform(0, self.max_delay))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode not in (0, -signal.SIGKILL):
            raise Failure(f"exit status {process.returncode}: {arguments}")
        return process.returncode != 0

    def kill_undoing(self, journal: Path) -> bool:
        """Kill an undoing when it has come to an action drawn by chance."""
        action = self.rng.choice([action for action in read_journal(journal) if action.kind != "mkdir"])
        inode = os.lstat(action.target).st_ino if os.path.lexists(action.target) else None

        def is_undone() -> bool:  # what was made is gone, what was rewritten is another file
            return not os.path.lexists(action.target) or os.lstat(action.target).st_ino != inode

        return self.kill("undo", journal, moment=is_undone)

    def kills(self, name: str, num_kills: int) -> None:
        """Kill the command, let another run go on, kill the undoing of that one, and undo all."""
        journal = self.new_journal()
        run(*self.command(name, journal))
        whole, whole_size = self.manifest(), journal.stat().st_size
        run("undo", journal)
        self.check_restored(f"undo of {name}")
        num_runs, num_undoings, shares = 0, 0, []
        while min(num_runs, num_undoings) < num_kills:
            first, second = self.new_journal(), self.new_journal()
            size = self.rng.uniform(0, whole_size)
            is_killed = self.kill(*self.command(name, first), moment=partial(has_grown, first, size))
            if is_killed:
                num_runs += 1
                shares.append(
                    len(self.manifest().items() - self.before.items()) / len(whole.items() - self.before.items())
                )
            run(*self.command(name, second), expected=(0, 1) if name == "move" else (0,))
            if name != "move":
                found = {key: value for key, value in self.manifest().items() if TEMPORARY_PREFIX not in key}
                check_equal(found, whole, f"{name}, killed and run again")
            if second.exists():
                num_undoings += self.kill_undoing(second)
                run("undo", second)
            if has_grown(first, 1):
                run("undo", first)
            self.check_restored(f"undo of {name}, killed and run again")
        done = " ".join(f"{share:.0%}" for share in sorted(shares))
        print(f"{name:9} killed {num_runs} times with {done} done, its undoing {num_undoings} times", flush=True)
        print(f"{'':9} always: run again, undone, all {self.num_files} files as before", flush=True)

    def stops(self, what: str, name: str, status: int, message: str, journal: Path | None = None) -> None:
        """A command that cannot do all must say so, leave no temporary file, and be undone."""
        journal = journal or self.new_journal()
        printed = run(*self.command(name, journal), expected=(status,))
        found = self.manifest()
        num_changed = len(found.items() ^ self.before.items())
        if message not in printed or any(TEMPORARY_PREFIX in path for path in found):
            raise Failure(f"{name} on {what} left a temporary file, or did not say {message!r}:\n{printed}")
        if journal.exists():
            run("undo", journal)
        self.check_restored(f"undo of {name} on {what}")
        print(
            f"{name:9} on {what}: exit status {status}, {num_changed} entries changed; undone: all as before",
            flush=True,
        )


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of that many bytes. Raises PermissionError where none can be mounted."""
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode:
        folder.rmdir()
        raise PermissionError("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def on_read_only_disks(trial: Trial) -> None:
    """The target is read-only, or a part of it, or the source."""
    with small_disk(trial.into, 2**24):
        read_only(trial.into)
        for name in ("copy", "move", "symlink"):
            trial.stops("a read-only target", name, 1, "Read-only file system")
    with small_disk(trial.folder / "bin", 2**24) as disk:
        trial.into.mkdir()
        target = trial.into / "5_to_7"
        target.mkdir()
        trial.before = trial.manifest()
        subprocess.run(["mount", "--bind", "-o", "ro", str(disk), str(target)], check=True)
        read_only(target)
        try:
            for name in ("copy", "move", "hardlink"):
                trial.stops("a target with one read-only bin", name, 1, "Read-only file system")
        finally:
            subprocess.run(["umount", str(target)], check=True)
        shutil.rmtree(trial.into)
    trial.before = trial.manifest()


def on_a_read_only_source(trial: Trial) -> None:
    library, kept = trial.folder / "library", trial.folder / "kept"
    library.rename(kept)
    with small_disk(library, 2**26):
        shutil.copytree(kept, library, symlinks=True, dirs_exist_ok=True)
        read_only(library)
        for name in ("move", "tag", "embed"):
            trial.stops("a read-only source", name, 1, "left as they are")
        trial.stops("a read-only source", "copy", 0, "undo with")
    kept.rename(library)


def on_full_disks(trial: Trial) -> None:
    """The target fills up in the middle; so does the disk that all is on; so does the journal's."""
    library = trial.folder / "library"
    files = [path for path in library.rglob("*") if path.is_file()]
    size = sum(-(-path.stat().st_size // 4096) * 4096 for path in files)
    with small_disk(trial.into, size // 2):
        for name in ("copy", "move"):
            trial.stops("a disk for half of it", name, 2, "stopped, no space left on device")
    with small_disk(trial.into, size * 2):
        trial.round_trip("move")  # across file systems
        trial.kills("move", 3)
    with small_disk(trial.folder / "tiny", 64 * trial.num_files) as tiny:
        for number, name in enumerate(CHANGING):
            trial.stops("a full disk for the journal", name, 2, "cannot write the journal", tiny / f"{number}")
            (tiny / f"{number}").unlink(missing_ok=True)
    kept = trial.folder / "kept"
    library.rename(kept)
    with small_disk(library, 2 * size):
        shutil.copytree(kept, library, symlinks=True, dirs_exist_ok=True)
        filler = trial.folder / "library" / "filler"
        for name, room in (("tag", 16 * 4096), ("embed", 4096)):
            journal = trial.new_journal()
            fill(filler, room)
            printed = run(*trial.command(name, journal), expected=(0, 2))
            run("undo", journal, expected=(0, 2))
            filler.unlink()
            run("undo", journal)
            trial.check_restored(f"undo of {name} on a nearly full disk")
            stopped = "stopped" if "stopped" in printed else "done"
            print(f"{name:9} on a disk with {room} bytes left: {stopped}; undone: all as before", flush=True)
    kept.rename(library)


def fill(path: Path, room: int) -> None:
    """Take all of a disk but `room` bytes."""
    with open(path, "wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(path.parent).free - room)))


def run_trial(
    folder: Path,
    num_images: int,
    num_killed_images: int,
    num_kills: int,
    seed: int,
    with_disks: bool = True,
    max_delay: float = 0.02,
) -> list[str]:
    """All parts; returns those that were skipped. Raises Failure where something was lost or changed."""
    rng, skipped = random.Random(seed), []
    (folder / "whole").mkdir()
    trial = Trial(folder / "whole", num_images, rng, max_delay)
    print(f"seed {seed}; {trial.num_files} files, of which {num_images} or a few more are images", flush=True)
    for name in CHANGING:
        trial.round_trip(name)
    for part in (on_read_only_disks, on_a_read_only_source, on_full_disks) if with_disks else ():
        try:
            part(trial)
        except PermissionError as error:
            skipped.append(part.__name__)
            print(
                f"SKIPPED {part.__name__}: {error}; run as root: sudo python tests/trials/organize_trial.py", flush=True
            )
    (folder / "killed").mkdir()
    killed = Trial(folder / "killed", num_killed_images, rng, max_delay)
    for name in ("copy", "move", "tag", "embed"):
        killed.kills(name, num_kills)
    return skipped


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_images", type=int, default=1000)
    parser.add_argument("--num_killed_images", type=int, default=1000, help="images of the runs that are killed")
    parser.add_argument("--num_kills", type=int, default=10, help="of each command, and of its undoing")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve()
        skipped = run_trial(path, args.num_images, args.num_killed_images, args.num_kills, args.seed)
    print("every tree was as before after its undo" + (f"; skipped: {', '.join(skipped)}" if skipped else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
