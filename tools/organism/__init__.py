"""How the organism and its variants are raised from one seed, and measured."""
