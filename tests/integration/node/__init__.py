"""The TypeScript client, packed and installed as its users install it, against real services."""
