"""A scoring run that is killed again and again ends like one that was left alone."""

import pytest
from forked_scoring import ForkedRun
from trials.kill_scoring import kill_and_go_on, start_script


def test_forked_scoring_that_is_killed_ends_with_the_file_of_an_undisturbed_run(tmp_path):
    ForkedRun(["--help"], tmp_path / "help.txt").wait()  # so that the libraries are loaded before a run is timed
    assert kill_and_go_on(tmp_path, num_kills=8, num_images=150, seed=1, start_run=ForkedRun).total() == 8


@pytest.mark.slow
def test_killed_scoring_ends_with_the_file_of_an_undisturbed_run(tmp_path):
    assert kill_and_go_on(tmp_path, num_kills=3, num_images=60, seed=1, start_run=start_script).total() == 3
