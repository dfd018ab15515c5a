"""The story of a run: states, staging, flipping, retiring, undoing, verifying, reporting.

The engine knows operations and paths; it never knows what a volume or an agent of some system is, and never imports a pack.
"""
