"""The one error that a person at a keyboard is meant to read."""


class UserError(Exception):
    """Something the user can mend: one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with 1; the learner logs it and
    returns it to the server as the reason for its refusal. It never holds image values, header
    fields or patient names.
    """
