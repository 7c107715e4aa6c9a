"""The sales console: book, preview, publish, undo and prove, in a browser or by its JSON twin."""
