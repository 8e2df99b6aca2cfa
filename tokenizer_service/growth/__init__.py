"""The vocabulary that serves now, and how it becomes the next one."""
