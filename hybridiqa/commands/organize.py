"""Act on a file of scores: sort images into folders, tag their captions, write scores into them. All can be undone.

    python organize.py sort scores.csv --into SORTED --edges 3 5 7
    python organize.py tag scores.csv --edges 3 5 7 --tags worst low good best
    python organize.py embed scores.csv
    python organize.py undo scores.csv.sort-20250101-120000.journal

--dry_run shows what would be done and touches nothing. No file is ever overwritten. Every action is written into a
journal before it is done, from which `undo` restores what was there. Exit status: 0 all done, 1 some files were
refused, 2 wrong usage, a full disk or a journal that cannot be written.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path, PurePath

from tqdm.auto import tqdm

from hybridiqa.organize.actions import perform
from hybridiqa.organize.captions import POSITIONS, check_tags
from hybridiqa.organize.journal import Action, Journal, read_journal
from hybridiqa.organize.marking import EMBEDDED, plan_embedding, plan_tags
from hybridiqa.organize.sorting import (
    MEASURES,
    MODES,
    Plan,
    Sorter,
    check_edges,
    choose_rows,
    find_bin,
    find_common_folder,
    name_bins,
)
from hybridiqa.organize.undo import undo_actions
from hybridiqa.scores.score_file import ScoreRow, of_one_scorer, on_one_line, read_scores
from hybridiqa.utils.cli import exit_status
from hybridiqa.utils.files import as_text

NUM_LISTED = 10  # files named one by one in what is said of them at the end


def show_path(path: str | PurePath) -> str:
    """Return a path as a terminal can show it."""
    return on_one_line(as_text(path))


def describe(action: Action) -> str:
    """Return one line that says what an action does."""
    source = f" {show_path(action.source)} ->" if action.source else ""
    return f"{action.kind}{source} {show_path(action.target)}"


def print_listed(title: str, lines: Sequence[str]) -> None:
    """Print the first few lines under a title that counts all."""
    if lines:
        print(f"{len(lines)} {title}:")
    for line in lines[:NUM_LISTED]:
        print(f"  {line}")
    if len(lines) > NUM_LISTED:
        print(f"  ... and {len(lines) - NUM_LISTED} more")


def make_journal(args: argparse.Namespace) -> Journal:
    """Return the journal of this run, by default beside the file of scores.

    Raises:
        ValueError: it cannot be made there.
    """
    path = args.journal
    if path is None:
        name = f"{args.scores}.{args.command}-{time.strftime('%Y%m%d-%H%M%S')}"
        suffixes = (f"_{number}.journal" if number > 1 else ".journal" for number in count(1))
        path = next(Path(name + suffix) for suffix in suffixes if not os.path.lexists(name + suffix))
    elif os.path.lexists(path):
        raise ValueError(f"--journal: {path} is there already; nothing is overwritten")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--journal: there is no folder {path.parent}")
    return Journal(path, list(args.argv))


def print_plan(plan: Plan) -> Counter[str]:
    """Print every action on a line of its own; return how many images each label gets."""
    planned: Counter[str] = Counter()
    for group in plan.groups:
        planned[group.label] += 1
        for action in group.actions:
            print(f"{group.label}: {describe(action)}")
    return planned


def do_plan(plan: Plan, journal: Journal, done: Counter[str]) -> None:
    """Do all of it, counting in `done`; what fails is added to what the plan refused."""
    with tqdm(total=plan.max_groups, unit="image", disable=None, leave=False) as progress:
        for group, reason in perform(plan.groups, journal):
            progress.update()
            if reason is None:
                done[group.label] += 1
            else:
                plan.refused.append((group.name, reason))


def print_summary(plan: Plan, done: Counter[str], left_out: Counter[str], labels: Iterable[str]) -> None:
    """Print how many images each label got, and which ones did not."""
    for label in labels:
        already = f" ({plan.already_there[label]} more were so already)" if plan.already_there[label] else ""
        print(f"{done[label]:8}  {label}{already}")
    renamed = [f"{on_one_line(name)} -> {on_one_line(target)}" for name, target in plan.collisions]
    print_listed("got another name, as theirs was taken", renamed)
    print_listed("left as they are", [f"{on_one_line(name)}: {on_one_line(why)}" for name, why in plan.refused])
    if left_out:
        print("not looked at: " + ", ".join(f"{number} {reason}" for reason, number in left_out.items()))


def carry_out(plan: Plan, args: argparse.Namespace, labels: Sequence[str], left_out: Counter[str]) -> int:
    """Print the plan or do it; return the exit status."""
    if args.dry_run:
        print_summary(plan, print_plan(plan), left_out, labels)
        print("nothing was done (--dry_run)")
        return 1 if plan.refused else 0
    done: Counter[str] = Counter()
    journal = make_journal(args)
    try:
        do_plan(plan, journal, done)
    finally:  # whatever stops the run, what it has done is told
        journal.close()
        print_summary(plan, done, left_out, labels)
        if journal.is_begun:
            print(f"undo with: python organize.py undo {shlex.quote(as_text(journal.path))}")
        else:
            print("nothing was changed")
    return 1 if plan.refused else 0


def run_sort(args: argparse.Namespace, rows: list[ScoreRow]) -> int:
    """Sort images into the bins' folders."""
    if os.path.lexists(args.into) and not args.into.is_dir():
        raise ValueError(f"--into must be a folder, or free, got {args.into}")
    for root in args.root or []:
        if not root.is_dir():
            raise ValueError(f"--root must be a folder, got {root}")
    chosen, left_out = choose_rows(rows, args.by)
    roots = args.root or [find_common_folder(chosen)]
    plan = Sorter(args.into, roots, args.mode).make_plan(chosen, args.by, args.edges)
    kept = ", ".join(map(show_path, roots))
    print(f"--mode {args.mode} into {show_path(args.into)}, keeping the folders below {kept}")
    return carry_out(plan, args, name_bins(args.edges), left_out)


def run_tag(args: argparse.Namespace, rows: list[ScoreRow]) -> int:
    """Give every caption its one quality tag."""
    if len(args.tags) != len(args.edges) + 1:
        raise ValueError(
            f"{len(args.edges)} --edges make {len(args.edges) + 1} bins and need as many --tags, got {len(args.tags)}"
        )
    check_tags(args.tags)
    if not args.caption_suffix.startswith(".") or os.sep in args.caption_suffix:
        raise ValueError(f"--caption_suffix begins with a dot, like .txt, got {args.caption_suffix!r}")
    chosen, left_out = choose_rows(rows, args.by)
    plan = plan_tags(
        chosen, lambda row: args.tags[find_bin(row, args.by, args.edges)], args.tags, args.caption_suffix, args.position
    )
    return carry_out(plan, args, args.tags, left_out)


def run_embed(args: argparse.Namespace, rows: list[ScoreRow]) -> int:
    """Write every score into its image file."""
    chosen, left_out = choose_rows(rows, "score")
    return carry_out(plan_embedding(chosen), args, [EMBEDDED], left_out)


def run_undo(args: argparse.Namespace) -> int:
    """Take back what a journal holds."""
    actions = read_journal(args.journal)
    num_undone = 0
    refused: list[str] = []
    try:
        for action, is_undone, reason in tqdm(
            undo_actions(actions, args.dry_run), total=len(actions), unit="action", disable=None, leave=False
        ):
            num_undone += is_undone
            if reason is not None:
                refused.append(f"{describe(action)}: {on_one_line(reason)}")
            elif is_undone and args.dry_run:
                print(f"undo: {describe(action)}")
    finally:
        print_listed("refused", refused)
        num_idle = len(actions) - num_undone - len(refused)
        would = "would be " if args.dry_run else ""
        print(f"{num_undone} actions {would}undone; {num_idle} had not been done, or are undone already")
    if not num_undone and not refused:
        print("there was nothing to undo: all is as it was before")
    return 1 if refused else 0


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    scores = argparse.ArgumentParser(add_help=False)
    scores.add_argument("scores", type=Path, metavar="SCORES", help="what score.py --output wrote")
    scores.add_argument("--scorer", help="whose scores, where the file holds those of several")
    scores.add_argument("--journal", type=Path, help="a new file (default: SCORES.<command>-<time>.journal)")
    dry_run = argparse.ArgumentParser(add_help=False)
    dry_run.add_argument("--dry_run", action="store_true", help="show what would be done and touch nothing")
    bins = argparse.ArgumentParser(add_help=False)
    bins.add_argument("--by", choices=MEASURES, default="score", help="which number decides (default score)")
    bins.add_argument("--edges", type=float, nargs="+", required=True, help="a value on an edge belongs above it")

    sort = commands.add_parser("sort", parents=[scores, bins, dry_run], help="images into folders named by range")
    sort.set_defaults(run=run_sort)
    sort.add_argument("--into", type=Path, required=True, metavar="DIR", help="where the bins' folders are made")
    sort.add_argument("--mode", choices=MODES, default="copy", help="default copy")
    sort.add_argument(
        "--root",
        type=Path,
        action="append",
        metavar="DIR",
        help="may be given several times: its folders are kept below each bin, files outside of all are refused "
        "(default: the folder that all images have in common)",
    )
    tag = commands.add_parser("tag", parents=[scores, bins, dry_run], help="one quality tag in every caption")
    tag.set_defaults(run=run_tag)
    tag.add_argument("--tags", nargs="+", required=True, help="lowest first, one more than edges")
    tag.add_argument("--caption_suffix", default=".txt", help="default .txt")
    tag.add_argument("--position", choices=POSITIONS, default="first", help="of a new tag (default first)")
    embed = commands.add_parser("embed", parents=[scores, dry_run], help="scores into PNG, JPEG and WebP files")
    embed.set_defaults(run=run_embed)
    undo = commands.add_parser("undo", parents=[dry_run], help="restore what was there before")
    undo.add_argument("journal", type=Path, metavar="JOURNAL", help="what an earlier command wrote")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Do one command; return the exit status.

    Raises:
        ValueError: wrong usage, found before anything is done.
        CommandFailure: the disk is full, or the journal cannot be written.
    """
    if "edges" in args:
        check_edges(args.edges)
    if args.command == "undo":
        return run_undo(args)
    return args.run(args, of_one_scorer(read_scores(args.scores), args.scorer))


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    args = parse_arguments(argv)
    args.argv = argv
    return exit_status("organize.py", lambda: run(args), "stopped; the journal tells what was done")
