"""Scores -> files sorted, tagged and marked."""
