"""Published tables and figures, one file each; they call the verbs and hold no method of their own."""
