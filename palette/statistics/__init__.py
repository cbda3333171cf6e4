"""Statistics of counted replies: rates, and pairs of them; torch-free."""
