"""Programs that the scripts at the root run: command lines read, packages called, exit statuses returned."""
