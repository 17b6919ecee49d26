"""How an operator is defined: its kernels, its ``torch.library`` definition, its gradients."""
