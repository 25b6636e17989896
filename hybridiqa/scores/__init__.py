"""File of scores, and its reports."""
