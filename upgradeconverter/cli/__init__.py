"""The command line: words in, one report out. Parsing, choosing, printing; no work of its own."""
