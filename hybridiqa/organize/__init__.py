"""Files sorted, tagged and marked by their scores."""
