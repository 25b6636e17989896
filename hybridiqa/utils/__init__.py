"""What any program needs: files, tables, plots, the Hub, and how a process runs."""
