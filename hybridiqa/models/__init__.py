"""Checkpoints, opened and described."""
