"""The max-entropy staircase approximator of Qiao, Yang and Li 2019."""
