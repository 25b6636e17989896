"""How well scorers judge."""
