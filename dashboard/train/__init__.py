"""The Train page: the form, what will run, the queue."""
