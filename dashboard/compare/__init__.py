"""The Compare page: runs over each other."""
