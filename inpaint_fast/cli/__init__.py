"""The command line `inpaint-fast`: one file a command; each parses, calls the library and prints."""
