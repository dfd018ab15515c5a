"""Compares the program with what others need for the same work, in the same run and on the same disks. See README.md.

A benchmark is never a timed test: it prints and writes down what it found, and fails only where results are not equal.
"""
