"""The distribution of all triggers that work, its generators, and the information that they are made with."""
