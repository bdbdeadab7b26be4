"""What the fork server of the loader's workers imports before it forks; nothing else imports this.

The imports then cost nothing in each worker. A SIGTERM to the whole process group (a batch system's
warning) must reach the trainer alone, which saves and stops; without the fork server it would lose
its workers on the way.
"""

import signal

import train.loader  # noqa: F401

signal.signal(signal.SIGTERM, signal.SIG_IGN)
