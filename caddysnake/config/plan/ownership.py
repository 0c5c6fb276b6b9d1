"""Who else could change what is about to be executed. Told from owners and modes, every folder on the way included.

A program that root executes is root's for as long as nobody else can replace it, or add to the folders that it reads
when it starts: ``bin/python``, the modules beside it, and the ``.pth`` files of its ``site-packages``.
"""

from __future__ import annotations

import os
import sys

from ... import files
from .accounts import Account
from .search import installation

ROOT_HINT = "give the app a user of its own, or make these files root's, and writable for nobody else"


def foreign_hand(python: str) -> str | None:
    """Why root must not execute the interpreter at *python*, ``None`` when it may.

    The interpreter that runs us is not looked at: whoever can change that one is root already.
    """
    if python == sys.executable:
        return None
    folder = os.path.dirname(python)
    root = os.path.dirname(folder)
    folders = [folder, os.path.dirname(os.path.realpath(python)), *installation(python).folders]
    if os.path.exists(os.path.join(root, "pyvenv.cfg")):
        folders += [root, os.path.join(root, "pyvenv.cfg")]
    for path in (python, *folders):
        found = files.first_hand(path, is_folder=path in folders)
        if found is not None:
            return str(found)
    return None


def misleads(path: str, descriptor: int, account: Account | None) -> str | None:
    """Why what *path* led to must not be handed to an app of *account*; ``None`` when it may. *descriptor* need not be
    open for reading.

    It is that user's own, or it may read it anyway, or nobody but root could have chosen where *path* leads. Else a
    link might have made root read what the user may not.
    """
    if account is None or account.uid == 0 or os.fstat(descriptor).st_uid == account.uid:
        return None
    real = files.name_of(descriptor)
    if real is not None and files.closed_to(real, account.uid, frozenset((account.gid, *account.groups))) is None:
        return None
    found = files.first_hand(path)
    return None if found is None else f"may not be read by user {account.name}, and could lead anywhere: {found}"
