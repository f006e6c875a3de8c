"""Filling holes of real pictures with a backbone and its branch."""
