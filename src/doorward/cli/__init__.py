"""The command line: thin commands that parse, call one function, write a run and print a table."""
