"""The verbs: each composes nouns and writes one artefact."""
