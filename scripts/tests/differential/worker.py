# SPDX-License-Identifier: GPL-2.0
"""A process for each of the drivers, so that one that hangs can be left behind."""

import multiprocessing
import traceback

from side import Side


class Hangs(Exception):
    """A driver does not answer."""


class Worker:
    def __init__(self, driver, limit):
        self.driver = driver
        self.limit = limit
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=_work, args=(driver, other), daemon=True)
        self.process.start()
        other.close()

    def ask(self, name, *arguments):
        self.pipe.send((name, arguments))

    def answer(self):
        if not self.pipe.poll(self.limit):
            raise Hangs(f"the driver {self.driver} does not answer")
        failed, answer = self.pipe.recv()
        if failed:
            raise RuntimeError(f"{self.driver}: {answer}")
        return answer

    def stop(self):
        self.ask("close")
        self.answer()
        self.pipe.close()
        self.process.join(self.limit)


def _work(driver, pipe):
    side = Side(driver)
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((False, getattr(side, name)(*arguments)))
        except Exception:  # pylint: disable=broad-except
            pipe.send((True, traceback.format_exc()))
        if name == "close":
            return
