"""The hands: what runs on each node, as root, and changes it. Never imports the manager's side."""
