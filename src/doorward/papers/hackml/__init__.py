"""Realistic defence: the HackML extension of Qiao, Yang and Li 2019 on faces."""
