"""The Runs page: the table of all runs and what can be done with them."""
