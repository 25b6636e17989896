"""Packages that the scripts of hybridIQA are built of."""
