"""Runs a folder that was written for Function Compute's Python runtime, without a change to its code.

`component` is the entry point for componentize-py. The folder `code` beside this package, with the user's files and the
packages of `requirements.txt`, is read when the component is built and kept in memory as `/code`. The user's own modules
run at the first call of an instance; packages that they import run at the build, so that they cost no instance any time.
"""
