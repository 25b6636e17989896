"""Labelled sources, made into datasets in memory."""
