"""The request code of other stacks, as they ship it, against our server."""
