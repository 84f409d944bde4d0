"""What lies near what: clusters of vectors, and how much is written to each."""
