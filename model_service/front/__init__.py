"""The process that speaks gRPC: checks what arrives, has it run, and answers. No torch."""
