"""The comparison: every arm on every task, alone, pooled and federated, from one command."""
