import unittest

from counting.callgrind import Count, parse

_OUTPUT = """\
version: 1
positions: line
events: Ir
totals: 175

fl=(1) src/engine/mod.rs
fn=(1) forebay::engine::Engine::turn
10 100
+2 20
fi=(2) /aws-lc/crypto/mem.c
* 5
fe=(1)
12 10
cfi=(3) /aws-lc/seal.S
cfn=(2) aws_lc_seal
calls=1 7
12 40

fl=(3)
fn=(2)
7 40
"""


class Parsing(unittest.TestCase):
    def test_what_a_callee_took_is_counted_once_and_where_it_is(self):
        self.assertEqual(parse(_OUTPUT).total, 175)

    def test_cryptography_is_told_by_its_sources_even_where_it_is_inlined(self):
        self.assertEqual(parse(_OUTPUT), Count(total=175, own=130))
