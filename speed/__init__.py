"""The same results sooner or in less memory."""
