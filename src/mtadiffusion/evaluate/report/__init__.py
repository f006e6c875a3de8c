"""What is written of an evaluation: figures with intervals, tables, plots, and a page of all results."""
