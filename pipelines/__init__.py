"""The jobs that people run: annotate, filter, the command line, and the recipes they ship with."""
