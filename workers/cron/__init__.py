"""What Debian's cron starts on every node each minute: due entries of accounts, each started by one node alone.

No manager and no worker is needed for it: the nodes agree by a lock and a record in the account's home.
"""
