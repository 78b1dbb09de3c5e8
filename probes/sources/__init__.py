"""Where dense features come from."""
