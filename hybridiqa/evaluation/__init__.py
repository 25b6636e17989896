"""Agreement of scorers with people, and their robustness."""
