"""One run's page, tab by tab."""
