"""Agreement of predicted with true image quality scores."""
