"""What a call asked for, kept while it runs: generations, beam searches, sessions."""
