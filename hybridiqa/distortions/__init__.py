"""Clean images -> distorted versions."""
