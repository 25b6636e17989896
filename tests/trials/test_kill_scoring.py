"""A scoring run that is killed again and again ends like one that was left alone."""

import pytest
from trials.kill_scoring import kill_and_go_on


@pytest.mark.slow
def test_killed_scoring_ends_with_the_file_of_an_undisturbed_run(tmp_path):
    assert kill_and_go_on(tmp_path, num_kills=3, num_images=60, seed=1).total() == 3
