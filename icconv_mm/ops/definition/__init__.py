"""How an operator is defined: its schema, its ``torch.library`` definition, its gradients."""
