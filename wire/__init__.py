"""What both services read off the wire and write to it: `lockstep.v1` to own types and back."""
