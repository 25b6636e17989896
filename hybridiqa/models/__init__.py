"""A checkpoint, opened and described."""
