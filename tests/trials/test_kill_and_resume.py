"""A run that is killed and resumed ends as one that was not; `kill_and_resume.py` does the same as often as wanted."""

import pytest
from trials.kill_and_resume import kill_and_resume


def test_a_run_that_is_killed_in_the_writing_of_a_checkpoint_ends_as_an_undisturbed_one(tmp_path):
    hits = kill_and_resume(tmp_path, num_kills=1, num_in_writing=1, seed=0, num_epochs=1)
    assert "writing" in hits


@pytest.mark.slow
def test_a_killed_and_resumed_run_ends_as_an_undisturbed_one(tmp_path):
    hits = kill_and_resume(tmp_path, num_kills=3, num_in_writing=1, seed=0)
    assert len(hits) >= 3 and hits.count("writing") >= 1
