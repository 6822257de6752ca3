"""Read or generate what a role is taught and measured with."""
