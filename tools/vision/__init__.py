"""Vision: an organism that sees, raised from one seed, and prompts that stand in pictures."""
