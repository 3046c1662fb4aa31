"""Instruction counts of fixed pieces of work, against a baseline."""
