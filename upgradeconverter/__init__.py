"""Brings the state on a device's disk up to the layout that the running system expects.

A run reads the *stamp* (which layout the disk carries), asks a *pack* which *migrations* lead to the target layout, reads the
device's own *checkpoint*, scans the declared *slots*, and turns all that into a *plan* of *steps* in *groups* and *waves*.
Each wave is one journalled transaction: stage, sync, flip, commit, retire. Whatever stops a run, the next start reads the
*journal* first and either finishes it or undoes it.

This module imports nothing: every boot pays for what it imports.
"""

__version__ = "0.1.0"
