"""What the command line does, one module or folder a command."""
