"""Concreteness: are concrete words the ones that count? (lesson 06)."""
