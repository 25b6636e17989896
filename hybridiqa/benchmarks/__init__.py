"""Speed and memory, ours beside the published system's."""
