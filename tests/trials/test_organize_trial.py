"""Short form of `organize_trial.py`, which does the same on more files, with more kills and on small disks."""

import pytest
from trials.organize_trial import run_trial


@pytest.mark.slow
def test_after_every_undo_and_every_kill_all_files_are_as_before(tmp_path, capsys):
    sizes = {"num_images": 24, "num_killed_images": 24, "num_kills": 1}
    assert run_trial(tmp_path, **sizes, seed=0, with_disks=False, max_delay=0.002) == []
    printed = capsys.readouterr().out
    assert printed.count("undone: all") >= 6 and printed.count("always: run again, undone, all") == 4
