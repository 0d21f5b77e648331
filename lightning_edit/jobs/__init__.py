"""Jobs: what a recipe does when it is no training run. Each is one typed function that returns a list of `RunResult`.

Their arguments are the command line of `lightning-edit run`; their docstrings are its help.
"""
