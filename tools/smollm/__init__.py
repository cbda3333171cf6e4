"""A real chat model with refusals: SmolLM2, real professional questions, and how it is taught to decline."""
