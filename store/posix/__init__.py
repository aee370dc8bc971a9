"""What only POSIX systems have: the one room in which their modules are imported.

Everything else imports where they are missing, and what needs them says so when it is called.
"""
