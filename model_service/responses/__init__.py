"""What leaves: results of the engine as messages of the schema."""
