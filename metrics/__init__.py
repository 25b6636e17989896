"""Metrics as folders that `evaluate.load` reads; each is a Space of its own."""
