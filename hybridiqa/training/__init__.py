"""A dataset -> a model."""
