"""The methods that are compared, each behind one small interface, by name."""
