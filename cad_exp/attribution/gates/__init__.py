"""Edits that find the gates of all components: what is asked of them, and the ways to find them."""
