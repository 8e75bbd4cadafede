"""Matching: how a caption meets an image (lesson 04)."""
