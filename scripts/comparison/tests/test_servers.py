import unittest

from comparison.servers import External


class External_servers(unittest.TestCase):
    def test_name_port_and_process(self):
        server = External.parse("mine=8443:1234")
        self.assertEqual(
            (server.name, server.ecdsa_port, server.rsa_port, server.pids),
            ("mine", 8443, None, [1234]),
        )

    def test_a_port_for_rsa_and_several_processes(self):
        server = External.parse("my-own.1=8443/8444:12,34")
        self.assertEqual((server.rsa_port, server.pids), (8444, [12, 34]))

    def test_anything_else_is_refused_with_what_to_write(self):
        for text in ("mine", "mine=8443", "mine=x:1", "=1:2", "mine=1:2,"):
            with self.assertRaisesRegex(ValueError, "NAME=PORT:PID"):
                External.parse(text)
