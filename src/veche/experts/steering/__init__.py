"""Push a voice towards some experts, away from others; and tell what that does."""
