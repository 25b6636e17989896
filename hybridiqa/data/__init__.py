"""A labelled source -> a dataset in memory."""
