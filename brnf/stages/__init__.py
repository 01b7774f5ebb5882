"""One module per rule of the workflow: the only code that opens and writes its files."""
