"""Sessions as callers see them: opened, used by one call at a time, expired."""
