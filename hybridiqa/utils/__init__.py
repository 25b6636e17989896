"""Tools for any program: files, tables, plots, the Hub, and the running environment."""
