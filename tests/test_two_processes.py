"""Two processes train the model that one does; see `two_processes.py` for the steps and the table."""

import pytest
from two_processes import NUM_STEPS, compare, launch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "dtype", "tolerance"),
    [("tiny", "float32", 1e-4), ("r50", "float64", 1e-9)],  # Lion's sign turns float noise into steps
)
def test_two_processes_train_as_one(layout, dtype, tolerance):
    one, two = (launch(number, layout, 64, dtype) for number in (1, 2))
    assert (one.num_processes, two.num_processes) == (1, 2)
    assert len(one.losses) == len(two.losses) == NUM_STEPS
    assert len(set(one.losses)) == NUM_STEPS  # it did train
    losses, weights = compare(one, two)
    assert losses < tolerance and weights < tolerance
    assert one.validation == pytest.approx(two.validation, abs=tolerance)
