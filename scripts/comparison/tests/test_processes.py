import os
import sys
import tempfile
import time
import unittest
from pathlib import Path

from comparison.processes import Failed, Processes, run
from comparison.scene import free_port

_LISTENER = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); "


class ProcessesTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def _listener(self, more: str, port: int) -> list[str]:
        return [sys.executable, "-c", _LISTENER + more, str(port)]

    def test_a_program_is_pinned_and_ended(self):
        cpu, port = min(os.sched_getaffinity(0)), free_port()
        with Processes(self.directory) as processes:
            process = processes.start(self._listener("time.sleep(60)", port), [cpu], port)
            self.assertEqual(os.sched_getaffinity(process.pid), {cpu})
        self.assertIsNotNone(process.returncode)

    def test_everything_is_ended_when_something_goes_wrong(self):
        port = free_port()
        with self.assertRaises(RuntimeError), Processes(self.directory) as processes:
            process = processes.start(self._listener("time.sleep(60)", port), None, port)
            raise RuntimeError
        self.assertIsNotNone(process.returncode)

    def test_a_program_that_does_not_listen_is_an_error_with_its_last_words(self):
        command = [sys.executable, "-c", "print('no such address')"]
        with Processes(self.directory) as processes:
            with self.assertRaisesRegex(Failed, "does not listen on port .*no such address"):
                processes.start(command, None, free_port())

    def test_a_port_that_is_taken_is_an_error(self):
        port = free_port()
        with Processes(self.directory) as processes:
            processes.start(self._listener("time.sleep(60)", port), None, port)
            with self.assertRaisesRegex(Failed, f"port {port} is taken"):
                processes.start(["true"], None, port)

    def test_a_program_that_takes_too_long_is_ended(self):
        began = time.monotonic()
        with self.assertRaisesRegex(Failed, "did not end within"):
            run(["sleep", "60"], 0.1)
        self.assertLess(time.monotonic() - began, 30)

    def test_a_program_that_fails_is_an_error_with_what_it_said(self):
        with self.assertRaisesRegex(Failed, "exit code 3: what was wrong"):
            run(["sh", "-c", "echo what was wrong >&2; exit 3"], 10)
