"""Drivers: whatever moves the person, as a neutral reference and an iterator of motion frames at a constant rate.

docs/architecture.md tells how to add a kind of driver: one file here and one line in motion/kinds.py.
"""
