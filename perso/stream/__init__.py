"""The event log: one protocol, several back ends. The log is the truth; all else is rebuilt."""
