"""What the doors of hybridIQA are built of: one idea a file."""
