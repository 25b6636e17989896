"""The file of scores, and what is shown of it."""
