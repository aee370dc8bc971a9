"""Objects: where a repository's immutable objects are kept."""
