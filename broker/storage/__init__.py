"""Where sessions, their messages and retained messages are kept: implementations of core.ports.Store."""
