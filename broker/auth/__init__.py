"""Who may connect, and what they may do: password files and access control lists."""
