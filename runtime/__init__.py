"""A run and its process: errors, arguments, processes, signals, run folders, files."""
