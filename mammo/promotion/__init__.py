"""Promotion: what a policy asks of a model, the gates that look, and the moving of aliases."""
