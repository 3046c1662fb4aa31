import unittest

from counting.callgrind import Count
from counting.verdict import compare, dearer, table


def _line(now: tuple[int, int], before: tuple[int, int] | None):
    known = {} if before is None else {"work": Count(*before)}
    return compare({"work": Count(*now)}, known)[0]


class Verdict(unittest.TestCase):
    def test_three_percent_more_pass_and_beyond_that_nothing_does(self):
        self.assertFalse(_line((1030, 103), (1000, 100)).fails())
        self.assertTrue(_line((1031, 100), (1000, 100)).fails())

    def test_more_of_our_own_fails_even_if_cryptography_hides_it(self):
        self.assertTrue(_line((1004, 104), (1000, 100)).fails())

    def test_fewer_pass_and_ask_for_a_new_baseline(self):
        line = _line((960, 96), (1000, 100))
        self.assertFalse(line.fails())
        self.assertIn("renew", line.words())

    def test_a_work_that_is_not_in_the_baseline_fails(self):
        line = _line((1, 1), None)
        self.assertTrue(line.fails())
        self.assertIn("not in the baseline", table([line]))

    def test_ten_routes_and_maglev_may_cost_three_percent_of_a_connection(self):
        def counts(routed: int) -> dict[str, Count]:
            work = "connection-full-ten-routes-maglev"
            return {"connection-full": Count(1000, 100), work: Count(routed, 130)}

        self.assertEqual(dearer(counts(1030)), [])
        self.assertEqual(
            dearer(counts(1031)), ["connection-full-ten-routes-maglev: 1.031 of connection-full"]
        )
