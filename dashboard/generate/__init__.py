"""The Generate page: caches side by side."""
