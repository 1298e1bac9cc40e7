"""The command line, one file a verb; a verb imports what is heavy only when it runs."""
