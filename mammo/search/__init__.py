"""The search: what may vary, who proposes the next trial, what is measured, what came out."""
