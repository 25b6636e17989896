"""Scoring of images, from file to score."""
