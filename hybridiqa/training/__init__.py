"""Training of a model on a dataset."""
