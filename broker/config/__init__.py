"""What a broker is told: the options, the kinds of their values, and how both come from a file, flags or Python."""
