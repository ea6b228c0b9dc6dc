"""The commands of the command line; each has a module or a folder of its own."""
