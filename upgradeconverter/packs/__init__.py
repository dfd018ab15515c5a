"""Packs: what a pack may say, where packs are found, and whether they are sound."""
