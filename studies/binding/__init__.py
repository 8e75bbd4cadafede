"""Binding: does the model know which object is red? (lesson 05)."""
