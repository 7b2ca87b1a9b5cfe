"""The broker's state and its rules, pure: no sockets, no threads, and the time is an argument."""
