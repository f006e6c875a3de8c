"""Annotated datasets on disk: images that stay where they are, and tables of knowledge beside them."""
