"""What people build on the verbs of a model: one file, or folder, a use.

A use knows models, records and measures. It is a function of its own name, here and on the command line, and returns a frozen
noun with `plain()`, its JSON-ready values.
"""
