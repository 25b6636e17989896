"""The file of scores, and its reports."""
